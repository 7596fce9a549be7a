// A sealed call from TypeScript: grpc-js, public HPKE packages and the contract's .proto files, nothing of Meshgate's.
//
//   npm ci && npm run build
//   MESHGATE_TOKEN=$(meshgate token) node build/call.js "Gravity is" [gateway|service]
import { run, sealed, shown, types, unary } from "./connection.js";
import type { Segment } from "./sealing.js";

interface CallResponse {
  readonly segment: Segment;
  readonly usage: unknown;
}

async function main(prompt: string, to: string): Promise<void> {
  const type = types.lookupType("meshgate.v1.GenerateRequest");
  const request = type.fromObject({ prompt, maxOutputTokens: 20, sampling: { temperature: 0 } });
  const call = await sealed("Generate", to, type.encode(request).finish());
  const reply = await unary<CallResponse>("SealedService", "Call", { envelope: call.envelope });
  const message = call.replies.open(reply.segment);
  call.replies.close();
  if (message === undefined) throw new Error("the reply has no message");
  const answer: any = types.lookupType("meshgate.v1.GenerateResponse").decode(message);
  console.log(process.stdout.isTTY ? shown(answer.candidates[0].text) : answer.candidates[0].text);
  console.log(JSON.stringify({ suite: call.suite, usage: reply.usage }));
}

run(main(process.argv[2] ?? "Gravity is", process.argv[3] ?? "gateway"));
