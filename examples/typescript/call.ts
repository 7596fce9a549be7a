// A sealed call from TypeScript: grpc-js, public HPKE packages and the contract's .proto files, nothing of Meshgate's.
//
//   npm ci && npm run build
//   MESHGATE_TOKEN=$(meshgate token) node build/call.js "Gravity is" [gateway|service]
//
// MESHGATE_TARGET and MESHGATE_CA say where the gateway is and which CA to believe, MESHGATE_PIN whose key alone.
import { readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import grpc from "@grpc/grpc-js";
import loader from "@grpc/proto-loader";
import protobuf from "protobufjs";
import { fingerprint, seal, type PublicKey, type Segment } from "./sealing.js";

const root = join(dirname(fileURLToPath(import.meta.url)), "..", "..", "..");
const { MESHGATE_TARGET = "localhost:8443", MESHGATE_TOKEN = "", MESHGATE_PIN } = process.env;
const ca = process.env.MESHGATE_CA ?? join(root, ".meshgate", "certs", "ca.pem");
const files = ["meshgate/v1/sealed.proto", "meshgate/v1/generation.proto"];

const SERVICE = "meshgate.v1.GenerationService";
const METHOD = `/${SERVICE}/Generate`;

interface ListedKey extends PublicKey {
  readonly recipient: number;
  readonly service: string;
}
interface CallResponse {
  readonly segment: Segment;
  readonly usage: unknown;
}

const types = new protobuf.Root();
types.resolvePath = (_, target) => join(root, "protos", target);
types.loadSync(files);
const definition = loader.loadSync(files, { includeDirs: [join(root, "protos")], defaults: true, longs: Number });
const contract: any = grpc.loadPackageDefinition(definition);

const tls = grpc.credentials.createSsl(readFileSync(ca));
const metadata = new grpc.Metadata();
metadata.set("authorization", `Bearer ${MESHGATE_TOKEN}`);

async function main(prompt: string, to: string): Promise<void> {
  const recipient = to === "service" ? 2 : 1;
  const key = await chooseKey(recipient);
  const claims = JSON.parse(Buffer.from(MESHGATE_TOKEN.split(".")[1] ?? "", "base64url").toString());
  const header = { method: METHOD, tenant: claims.tenant, subject: claims.sub, recipient };
  const request = types.lookupType("meshgate.v1.GenerateRequest");
  const message = request.encode(
    request.fromObject({ prompt, maxOutputTokens: 20, sampling: { temperature: 0 } }),
  ).finish();
  const sealed = await seal(types, key, header, message);
  const reply = await unary<CallResponse>(contract.meshgate.v1.SealedService, "Call", { envelope: sealed.envelope });
  const answer: any = types.lookupType("meshgate.v1.GenerateResponse").decode(sealed.open(reply.segment));
  console.log(answer.candidates[0].text);
  console.log(JSON.stringify({ suite: key.suite, usage: reply.usage }));
}

/** The first listed key of the recipient, which the gateway prefers; with a pin no other is sealed to. */
async function chooseKey(recipient: number): Promise<PublicKey> {
  const listed = await unary<{ keys: ListedKey[] }>(contract.meshgate.v1.KeyService, "ListSealingKeys", { recipient });
  const owner = recipient === 2 ? SERVICE : "";
  const found = listed.keys.find(
    (key) => key.service === owner && (!MESHGATE_PIN || fingerprint(key).toString("hex") === MESHGATE_PIN),
  );
  if (found === undefined) throw new Error("no key to seal to");
  return found;
}

function unary<Reply>(service: any, method: string, request: object): Promise<Reply> {
  const client = new service(MESHGATE_TARGET, tls);
  return new Promise<Reply>((resolve, reject) => {
    client[method](request, metadata, { deadline: Date.now() + 60_000 }, (error: grpc.ServiceError, reply: Reply) => {
      client.close();
      if (error) reject(new Error(`${grpc.status[error.code]}: ${error.details}`));
      else resolve(reply);
    });
  });
}

main(process.argv[2] ?? "Gravity is", process.argv[3] ?? "gateway").catch((error: Error) => {
  console.error(error.message);
  process.exitCode = 1;
});
