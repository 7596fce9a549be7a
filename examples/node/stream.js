// An authenticated streaming call from Node: the contract's .proto files and grpc-js, nothing of Meshgate's.
//
//   MESHGATE_TOKEN=$(meshgate token) node stream.js "Gravity is"
//
// MESHGATE_TARGET and MESHGATE_CA say where the gateway is and which CA to believe.
import { readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import grpc from "@grpc/grpc-js";
import loader from "@grpc/proto-loader";

const here = dirname(fileURLToPath(import.meta.url));
const protos = join(here, "..", "..", "protos");
const { MESHGATE_TARGET = "127.0.0.1:8443", MESHGATE_TOKEN = "" } = process.env;
const ca = process.env.MESHGATE_CA ?? join(here, "..", "..", ".meshgate", "certs", "ca.pem");

const definition = loader.loadSync("meshgate/v1/generation.proto", {
  includeDirs: [protos],
  enums: String,
  longs: String,
  oneofs: true,
});
const { GenerationService } = grpc.loadPackageDefinition(definition).meshgate.v1;

const tls = grpc.credentials.createSsl(readFileSync(ca));
const token = grpc.credentials.createFromMetadataGenerator((_, done) => {
  const metadata = new grpc.Metadata();
  metadata.set("authorization", `Bearer ${MESHGATE_TOKEN}`);
  done(null, metadata);
});
// A gateway on this machine is reached without the proxy that the environment may name.
const direct = /^(localhost|127\.|\[::1\])/.test(MESHGATE_TARGET) ? { "grpc.enable_http_proxy": 0 } : {};
const client = new GenerationService(MESHGATE_TARGET, grpc.credentials.combineChannelCredentials(tls, token), direct);

const stream = client.GenerateStream(
  { request: { prompt: process.argv[2] ?? "Gravity is", maxOutputTokens: 20, sampling: { temperature: 0 } } },
  { deadline: Date.now() + 60_000 },
);
stream.on("data", (reply) => {
  for (const delta of reply.deltas) process.stdout.write(delta.text);
  if (reply.usage) process.stdout.write(`\n${JSON.stringify(reply.usage)}\n`);
});
stream.on("error", (error) => {
  console.error(`${grpc.status[error.code]}: ${error.details}`);
  process.exitCode = 1;
  client.close();
});
stream.on("end", () => client.close());
