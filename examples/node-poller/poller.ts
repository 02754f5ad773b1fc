// Polls a queue of messages and receipts: works on each item once, then deletes the message. One that fails comes back.

import { GetObjectCommand, S3Client } from "@aws-sdk/client-s3";
import { type Message, SQSClient } from "@aws-sdk/client-sqs";
import { Consumer } from "sqs-consumer";

// The members of Meta's types that the work needs. Meta adds members, types and values to all of them.
type Item = { id?: string; type?: string; status?: string; code?: number; title?: string };
type Kind = "messages" | "statuses" | "errors";
type Change = { field?: string; value: Partial<Record<Kind, Item[]>> };
type Attributes = Partial<Record<string, string>>;

const s3 = new S3Client({ forcePathStyle: Boolean(process.env.AWS_ENDPOINT_URL) });

const consumer = Consumer.create({
  queueUrl: process.env.QUEUE_URL ?? "",
  sqs: new SQSClient({ useQueueUrlAsEndpoint: false }),
  batchSize: 10,
  waitTimeSeconds: 20,
  messageAttributeNames: ["All"],
  // A long poll that is under way may bring messages, which are still worked on.
  pollingCompleteWaitTimeMs: 30_000,
  handleMessage: async (message) => {
    const attributes: Attributes = Object.fromEntries(
      Object.entries(message.MessageAttributes ?? {}).map(([name, value]) => [name, value.StringValue]),
    );
    const { field, value }: Change = JSON.parse(await bodyOf(message, attributes)).entry[0].changes[0];
    // All three lists, whatever the attribute `kind`: it names only the first that is not empty.
    const items = (["messages", "statuses", "errors"] as const).flatMap((kind) =>
      (value[kind] ?? []).map((item, position) => ({ kind, item, key: `${attributes.event_id} ${kind} ${position}` })),
    );
    // This ends as a dead letter, which somebody looks at.
    if (field !== "messages" || !items.length) throw new Error("neither a message nor a receipt nor an error");
    // An item that fails does not hold up the others.
    const results = await Promise.allSettled(items.map(({ kind, item, key }) => once(key, () => work(kind, item, key))));
    const failed = results.find((result) => result.status === "rejected");
    if (failed) throw failed.reason;
    // Only the returned messages are deleted.
    return message;
  },
});

async function bodyOf(message: Message, attributes: Attributes): Promise<string> {
  let body = message.Body ?? "";
  if (attributes.ExtendedPayloadSize) {
    const [, where] = JSON.parse(body);
    const object = await s3.send(new GetObjectCommand({ Bucket: where.s3BucketName, Key: where.s3Key }));
    body = (await object.Body?.transformToString()) ?? "";
  }
  return attributes.encoding === "base64" ? Buffer.from(body, "base64").toString() : body;
}

// The outcome of the last items. The messages of a batch are handled at the same time, so the mark is set before the
// work, in the same step as the look for it; a copy waits for the outcome. Several processes need a table instead, with
// conditional writes as in ../python-lambda.
const outcomes = new Map<string, Promise<void>>();

function once(key: string, work: () => Promise<void>): Promise<void> {
  const known = outcomes.get(key);
  if (known) return known;
  const outcome = work();
  outcomes.set(key, outcome);
  outcome.catch(() => outcomes.delete(key));
  const [oldest] = outcomes.keys();
  if (outcomes.size > 100_000 && oldest) outcomes.delete(oldest);
  return outcome;
}

// The place for your own code.
async function work(kind: Kind, item: Item, key: string): Promise<void> {
  const { id, type, status, code, title } = item;
  console.log(JSON.stringify({ key, kind, id, type, status, code, title }));
}

consumer.on("error", (error) => console.error(`SQS: ${error.message}`));
consumer.on("processing_error", (error) => console.error(`not handled: ${error.message}`));
for (const signal of ["SIGINT", "SIGTERM"]) process.once(signal, () => consumer.stop());
consumer.start();
