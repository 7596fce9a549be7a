// An authenticated streaming call from Node: the contract's .proto files and grpc-js, nothing of Meshgate's.
//
//   MESHGATE_TOKEN=$(meshgate token) node stream.js "Gravity is"
//
// MESHGATE_TARGET and MESHGATE_CA say where the gateway is and which CA to believe, MESHGATE_TOKEN or MESHGATE_TOKEN_FILE
// who calls: the same variables as the `meshgate` command has.
import { readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import grpc from "@grpc/grpc-js";
import loader from "@grpc/proto-loader";

const here = dirname(fileURLToPath(import.meta.url));
const protos = join(here, "..", "..", "protos");
const { MESHGATE_TARGET = "127.0.0.1:8443", MESHGATE_TOKEN, MESHGATE_TOKEN_FILE, MESHGATE_HOME } = process.env;
const ca = process.env.MESHGATE_CA ?? join(MESHGATE_HOME ?? join(here, "..", "..", ".meshgate"), "certs", "ca.pem");

// What a model or a server says, with what a terminal would obey escaped.
function shown(text) {
  const unsafe = /[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff]/g;
  return text.replace(unsafe, (letter) => `\\u${letter.charCodeAt(0).toString(16).padStart(4, "0")}`);
}

function fail(what) {
  console.error(shown(`meshgate: ${what}`));
  process.exit(1);
}

function read(file) {
  try {
    return readFileSync(file);
  } catch (error) {
    fail(`${file}: can't be read (${error.code})`);
  }
}

if (MESHGATE_TOKEN && MESHGATE_TOKEN_FILE) fail("MESHGATE_TOKEN and MESHGATE_TOKEN_FILE are both set: unset one of them");
if (!MESHGATE_TOKEN && !MESHGATE_TOKEN_FILE) {
  fail("no token: set MESHGATE_TOKEN, or MESHGATE_TOKEN_FILE to the file that holds one");
}
const bearer = MESHGATE_TOKEN ?? read(MESHGATE_TOKEN_FILE).toString("ascii").trim();

const definition = loader.loadSync("meshgate/v1/generation.proto", {
  includeDirs: [protos],
  enums: String,
  longs: String,
  oneofs: true,
});
const { GenerationService } = grpc.loadPackageDefinition(definition).meshgate.v1;

const tls = grpc.credentials.createSsl(read(ca));
const token = grpc.credentials.createFromMetadataGenerator((_, done) => {
  const metadata = new grpc.Metadata();
  metadata.set("authorization", `Bearer ${bearer}`);
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
  for (const delta of reply.deltas) process.stdout.write(process.stdout.isTTY ? shown(delta.text) : delta.text);
  if (reply.usage) process.stdout.write(`\n${JSON.stringify(reply.usage)}\n`);
});
stream.on("error", (error) => {
  console.error(shown(`${grpc.status[error.code]}: ${error.details}`));
  process.exitCode = 1;
  client.close();
});
stream.on("end", () => client.close());
