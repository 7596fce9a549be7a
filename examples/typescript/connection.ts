// The connection to the gateway, from its environment: where it is, whom to believe, and whose key to seal to.
//
// MESHGATE_TARGET and MESHGATE_CA say where the gateway is and which CA to believe, MESHGATE_TOKEN or MESHGATE_TOKEN_FILE
// who calls: the same variables as the `meshgate` command has. MESHGATE_PIN says whose key alone may be sealed to.
import { readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import grpc from "@grpc/grpc-js";
import loader from "@grpc/proto-loader";
import protobuf from "protobufjs";
import { fingerprint, seal, type PublicKey, type SealedRequest } from "./sealing.js";

const root = join(dirname(fileURLToPath(import.meta.url)), "..", "..", "..");
const { MESHGATE_TARGET = "127.0.0.1:8443", MESHGATE_HOME, MESHGATE_PIN } = process.env;
const ca = process.env.MESHGATE_CA ?? join(MESHGATE_HOME ?? join(root, ".meshgate"), "certs", "ca.pem");
const files = ["meshgate/v1/sealed.proto", "meshgate/v1/generation.proto"];

const SERVICE = "meshgate.v1.GenerationService";
const TIMEOUT_MS = 60_000;

interface ListedKey extends PublicKey {
  readonly recipient: number;
  readonly service: string;
}

/** The contract's messages. */
export const types = new protobuf.Root();
types.resolvePath = (_, target) => join(root, "protos", target);
types.loadSync(files);

const definition = loader.loadSync(files, { includeDirs: [join(root, "protos")], defaults: true, longs: Number });
const contract: any = grpc.loadPackageDefinition(definition);
const token = bearer();
const tls = grpc.credentials.createSsl(read(ca));
// A gateway on this machine is reached without the proxy that the environment may name.
const direct = /^(localhost|127\.|\[::1\])/.test(MESHGATE_TARGET) ? { "grpc.enable_http_proxy": 0 } : {};
const metadata = new grpc.Metadata();
metadata.set("authorization", `Bearer ${token}`);

/** Seals a request of a method of GenerationService to "gateway" or "service". Says to which suite's key. */
export async function sealed(
  method: string, to: string, message: Uint8Array,
): Promise<SealedRequest & { readonly suite: number }> {
  const recipient = to === "service" ? 2 : 1;
  const key = await chooseKey(recipient);
  const claims = JSON.parse(Buffer.from(token.split(".")[1] ?? "", "base64url").toString());
  const cap = recipient === 2 ? { tokenCap: message.length + 4096 } : {};
  const header = { method: `/${SERVICE}/${method}`, tenant: claims.tenant, subject: claims.sub, recipient, ...cap };
  return { ...(await seal(types, key, header, message)), suite: key.suite };
}

/** The first listed key of the recipient, which the gateway prefers; with a pin no other is sealed to. */
async function chooseKey(recipient: number): Promise<PublicKey> {
  const listed = await unary<{ keys: ListedKey[] }>("KeyService", "ListSealingKeys", { recipient });
  const owner = recipient === 2 ? SERVICE : "";
  const found = listed.keys.find(
    (key) => key.service === owner && (!MESHGATE_PIN || fingerprint(key).toString("hex") === MESHGATE_PIN),
  );
  if (found === undefined) throw new Error("no key to seal to");
  return found;
}

/** Calls a unary method. */
export function unary<Reply>(service: string, method: string, request: object): Promise<Reply> {
  const client = connect(service);
  return new Promise<Reply>((resolve, reject) => {
    client[method](request, metadata, options(), (error: grpc.ServiceError, reply: Reply) => {
      client.close();
      if (error) reject(explained(error));
      else resolve(reply);
    });
  });
}

/** Calls SealedService.CallStream with an envelope alone, and gives its replies as they come. */
export async function* streamed<Reply>(envelope: object): AsyncGenerator<Reply> {
  const client = connect("SealedService");
  try {
    const stream = client.CallStream(metadata, options());
    stream.end({ envelope });
    yield* stream;
  } catch (error) {
    throw explained(error as grpc.ServiceError);
  } finally {
    client.close();
  }
}

/** What a model or a server says, with what a terminal would obey escaped. */
export function shown(text: string): string {
  const unsafe = /[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff]/g;
  return text.replace(unsafe, (letter) => `\\u${letter.charCodeAt(0).toString(16).padStart(4, "0")}`);
}

/** Prints why `main` failed, in a line. */
export function run(main: Promise<void>): void {
  main.catch((error: Error) => {
    console.error(shown(error.message));
    process.exitCode = 1;
  });
}

function connect(service: string): any {
  return new contract.meshgate.v1[service](MESHGATE_TARGET, tls, direct);
}

function options(): grpc.CallOptions {
  return { deadline: Date.now() + TIMEOUT_MS };
}

function explained(error: grpc.ServiceError): Error {
  return grpc.status[error.code] === undefined ? error : new Error(`${grpc.status[error.code]}: ${error.details}`);
}

/** The token that the environment names. */
function bearer(): string {
  const { MESHGATE_TOKEN, MESHGATE_TOKEN_FILE } = process.env;
  if (MESHGATE_TOKEN && MESHGATE_TOKEN_FILE) {
    return fail("MESHGATE_TOKEN and MESHGATE_TOKEN_FILE are both set: unset one of them");
  }
  if (MESHGATE_TOKEN) return MESHGATE_TOKEN;
  if (MESHGATE_TOKEN_FILE) return read(MESHGATE_TOKEN_FILE).toString("ascii").trim();
  return fail("no token: set MESHGATE_TOKEN, or MESHGATE_TOKEN_FILE to the file that holds one");
}

function read(file: string): Buffer {
  try {
    return readFileSync(file);
  } catch (error) {
    return fail(`${file}: can't be read (${(error as NodeJS.ErrnoException).code})`);
  }
}

function fail(what: string): never {
  console.error(shown(`meshgate: ${what}`));
  process.exit(1);
}
