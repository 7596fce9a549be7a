// A sealed stream from TypeScript: each reply a segment, and a last one that says it was all.
//
//   MESHGATE_TOKEN=$(meshgate token) node build/stream.js "Gravity is" [gateway|service]
import { run, sealed, shown, streamed, types } from "./connection.js";
import type { Segment } from "./sealing.js";

interface CallStreamResponse {
  readonly segment: Segment;
  readonly usage: unknown;
}

async function main(prompt: string, to: string): Promise<void> {
  const type = types.lookupType("meshgate.v1.GenerateStreamRequest");
  const request = type.fromObject({ request: { prompt, maxOutputTokens: 20, sampling: { temperature: 0 } } });
  const call = await sealed("GenerateStream", to, type.encode(request).finish());
  let usage: unknown;
  for await (const reply of streamed<CallStreamResponse>(call.envelope)) {
    const message = call.replies.open(reply.segment);
    if (message !== undefined) print(message);
    usage = reply.usage ?? usage;
  }
  call.replies.close(); // a stream that only ended was cut off, whatever its status
  console.log(JSON.stringify({ suite: call.suite, usage }));
}

function print(message: Uint8Array): void {
  const reply: any = types.lookupType("meshgate.v1.GenerateStreamResponse").decode(message);
  for (const delta of reply.deltas) console.log(process.stdout.isTTY ? shown(delta.text) : delta.text);
}

run(main(process.argv[2] ?? "Gravity is", process.argv[3] ?? "gateway"));
