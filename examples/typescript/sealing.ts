// Meshgate's sealed calls, version 1, from docs/formats/sealed-calls.md: bytes in, bytes out. The caller's side of
// calls with one request.
import { createDecipheriv, createHash, hkdfSync, randomBytes } from "node:crypto";
import { Aes256Gcm, CipherSuite, DhkemX25519HkdfSha256, HkdfSha256 } from "@hpke/core";
import { XWing } from "@hpke/hybridkem-x-wing";
import protobuf from "protobufjs";

/** SealingSuite's numbers. */
export const MLKEM768_X25519 = 1;
export const X25519 = 2;

/** What KeyService lists, as far as it is believed: id and fingerprint are computed from the key. */
export interface PublicKey {
  readonly suite: number;
  readonly publicKey: Uint8Array;
}

/** What policy may read of a call. */
export interface Header {
  readonly method: string;
  readonly model?: string;
  readonly tenant: string;
  readonly subject: string;
  /** SealingRecipient: 1 is the gateway, 2 the service. */
  readonly recipient: number;
  /** The most tokens the call may take; a service as recipient needs it. */
  readonly tokenCap?: number;
}

export interface Segment {
  readonly ciphertext: Uint8Array;
  readonly last: boolean;
}

export interface SealedRequest {
  readonly envelope: { readonly header: Uint8Array; readonly ciphertext: Uint8Array };
  readonly replies: Replies;
}

const TAG_BYTES = 16;
const MAX_SEGMENTS = 2 ** 31;

/** SHA-256 of the suite's number and the key, for pinning. */
export function fingerprint(key: PublicKey): Buffer {
  return createHash("sha256").update(Uint8Array.of(key.suite)).update(key.publicKey).digest();
}

/** Seals a request. `types` has the messages of sealed.proto. */
export async function seal(
  types: protobuf.Root, key: PublicKey, header: Header, message: Uint8Array, nowMs = Date.now(),
): Promise<SealedRequest> {
  const sealed = encode(types, "EnvelopeHeader", {
    version: 1,
    ...header,
    keyId: fingerprint(key).toString("hex").slice(0, 16),
    sealedAtUnixMs: nowMs,
    requestId: randomBytes(16),
  });
  const replyKey = randomBytes(32);
  const body = encode(types, "SealedBody", { replyKey, message });
  const suite = hpke(key.suite);
  const recipientPublicKey = await suite.kem.deserializePublicKey(bytes(key.publicKey));
  const info = Buffer.concat([Buffer.from("meshgate/sealed/v1\0"), Uint8Array.of(key.suite), sealed]);
  const { enc, ct } = await suite.seal({ recipientPublicKey, info: bytes(info) }, bytes(body));
  const ciphertext = Buffer.concat([Buffer.from(enc), Buffer.from(ct)]);
  return { envelope: { header: sealed, ciphertext }, replies: new Replies(replyKey, sealed) };
}

/** Opens the segments of a call's replies, in their order. */
export class Replies {
  readonly #key: Buffer;
  readonly #base: Buffer;
  #next = 0;
  #complete = false;

  /** `header` is the envelope's, as it was sent. */
  constructor(replyKey: Uint8Array, header: Uint8Array) {
    const salt = createHash("sha256").update(header).digest();
    const derived = Buffer.from(hkdfSync("sha256", replyKey, salt, "meshgate/sealed/v1/response", 44));
    this.#key = derived.subarray(0, 32);
    this.#base = derived.subarray(32);
  }

  /** The message in a segment, if it has one. Throws where it was changed, moved or repeated: nothing after it counts. */
  open(segment: Segment): Uint8Array | undefined {
    if (this.#complete || this.#next >= MAX_SEGMENTS) throw new Error("the reply goes on after its end");
    const plain = this.#decrypted(segment);
    this.#complete = segment.last;
    this.#next += 1;
    if (plain[0] === 1) return plain.subarray(1);
    if (plain.length === 1 && plain[0] === 0 && segment.last) return undefined;
    throw new Error("the reply does not open");
  }

  /** To be called when the call has ended. Throws where its last segment never came. */
  close(): void {
    if (!this.#complete) throw new Error("the reply was cut off");
  }

  #decrypted(segment: Segment): Buffer {
    const at = segment.ciphertext.length - TAG_BYTES;
    if (at < 1) throw new Error("the reply does not open");
    const decipher = createDecipheriv("aes-256-gcm", this.#key, this.#nonce());
    decipher.setAAD(Uint8Array.of(segment.last ? 1 : 0));
    decipher.setAuthTag(segment.ciphertext.subarray(at));
    try {
      return Buffer.concat([decipher.update(segment.ciphertext.subarray(0, at)), decipher.final()]);
    } catch {
      throw new Error("the reply does not open");
    }
  }

  /** base XOR the segment's number, as 96 bits; the number has no more than 31. */
  #nonce(): Buffer {
    const nonce = Buffer.from(this.#base);
    nonce.writeUInt32BE((nonce.readUInt32BE(8) ^ this.#next) >>> 0, 8);
    return nonce;
  }
}

function hpke(suite: number): CipherSuite {
  const kem = suite === MLKEM768_X25519 ? new XWing() : suite === X25519 ? new DhkemX25519HkdfSha256() : undefined;
  if (kem === undefined) throw new Error(`no such suite: ${suite}`);
  return new CipherSuite({ kem, kdf: new HkdfSha256(), aead: new Aes256Gcm() });
}

function encode(types: protobuf.Root, name: string, fields: object): Uint8Array {
  const type = types.lookupType(`meshgate.v1.${name}`);
  return type.encode(type.fromObject(fields)).finish();
}

/** A buffer of its own: what is a view of Node's pool would be passed on whole. */
function bytes(view: Uint8Array): ArrayBuffer {
  return new Uint8Array(view).buffer;
}
