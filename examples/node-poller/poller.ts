// Polls a queue of messages and receipts: works on each item once, then deletes the message. One that fails comes back.

import { GetObjectCommand, S3Client } from "@aws-sdk/client-s3";
import { type Message, SQSClient } from "@aws-sdk/client-sqs";
import { Consumer } from "sqs-consumer";
import { handle, VISIBILITY_TIMEOUT } from "./handled.js";

type Notification = { object?: string; entry: [{ changes: [{ field?: string; value: Record<string, unknown> }] }] };
type Attributes = Partial<Record<string, string>>;

const WHATSAPP = "whatsapp_business_account";
const s3 = new S3Client({ forcePathStyle: Boolean(process.env.AWS_ENDPOINT_URL) });

const consumer = Consumer.create({
  queueUrl: process.env.QUEUE_URL ?? "",
  sqs: new SQSClient({ useQueueUrlAsEndpoint: false }),
  batchSize: 10,
  waitTimeSeconds: 20,
  messageAttributeNames: ["All"],
  // One message can have thousands of items, so the timeout is extended during the work.
  visibilityTimeout: VISIBILITY_TIMEOUT,
  heartbeatInterval: VISIBILITY_TIMEOUT / 3,
  // A long poll that is under way may bring messages, which are still worked on.
  pollingCompleteWaitTimeMs: 30_000,
  handleMessage: async (message) => {
    const attributes: Attributes = Object.fromEntries(
      Object.entries(message.MessageAttributes ?? {}).map(([name, value]) => [name, value.StringValue]),
    );
    // Without it, different messages would have the same keys.
    if (!attributes.event_id) throw new Error("no event_id");
    const { object = WHATSAPP, entry: [{ changes: [{ field, value }] }] }: Notification = JSON.parse(await bodyOf(message, attributes));
    // All three lists, whatever the attribute `kind`: it names only the first that is not empty.
    const items = ["messages", "statuses", "errors"].flatMap((kind) =>
      arrayOf(value[kind]).map((item, position) => ({ kind, item, key: `${attributes.event_id}/${kind}/${position}` })),
    );
    // This ends as a dead letter, which somebody looks at.
    if (object !== WHATSAPP || field !== "messages" || !items.length) throw new Error("neither a message nor a receipt nor an error");
    // An item that fails does not hold up the others.
    const failures: unknown[] = [];
    for (const { kind, item, key } of items) {
      await handle(key, kind, item, value).catch((error: unknown) => failures.push(error));
    }
    if (failures.length) throw failures[0];
    // Only the returned messages are deleted.
    return message;
  },
});

// Meta's types are not checked by the function that fills the queue.
function arrayOf(list: unknown): unknown[] {
  return Array.isArray(list) ? list : [];
}

async function bodyOf(message: Message, attributes: Attributes): Promise<string> {
  let body = message.Body ?? "";
  if (attributes.ExtendedPayloadSize) {
    const [, where] = JSON.parse(body);
    const object = await s3.send(new GetObjectCommand({ Bucket: where.s3BucketName, Key: where.s3Key }));
    body = (await object.Body?.transformToString()) ?? "";
  }
  return attributes.encoding === "base64" ? Buffer.from(body, "base64").toString() : body;
}

consumer.on("error", (error) => console.error(`SQS: ${error.message}`));
consumer.on("processing_error", (error) => console.error(`not handled: ${error.message}`));
for (const signal of ["SIGINT", "SIGTERM"]) process.once(signal, () => consumer.stop());
consumer.start();
