// Meshgate's sealed calls, version 1, from docs/sealing.md: bytes in, bytes out. The caller's side of a unary call.
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
}

export interface Segment {
  readonly ciphertext: Uint8Array;
  readonly last: boolean;
}

export interface SealedRequest {
  readonly envelope: { readonly header: Uint8Array; readonly ciphertext: Uint8Array };
  /** Opens the one reply. Throws where it was changed or is not complete. */
  open(segment: Segment): Uint8Array;
}

const TAG_BYTES = 16;

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
  return { envelope: { header: sealed, ciphertext }, open: (segment) => openReply(replyKey, sealed, segment) };
}

/** Opens the only segment of a unary reply, number 0. */
export function openReply(replyKey: Uint8Array, header: Uint8Array, segment: Segment): Uint8Array {
  if (!segment.last) throw new Error("the reply was cut off");
  const salt = createHash("sha256").update(header).digest();
  const derived = Buffer.from(hkdfSync("sha256", replyKey, salt, "meshgate/sealed/v1/response", 44));
  const at = segment.ciphertext.length - TAG_BYTES;
  if (at < 1) throw new Error("the reply does not open");
  const decipher = createDecipheriv("aes-256-gcm", derived.subarray(0, 32), derived.subarray(32));
  decipher.setAAD(Uint8Array.of(1));
  decipher.setAuthTag(segment.ciphertext.subarray(at));
  const plain = Buffer.concat([decipher.update(segment.ciphertext.subarray(0, at)), decipher.final()]);
  if (plain[0] !== 1) throw new Error("the reply has no message");
  return plain.subarray(1);
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
