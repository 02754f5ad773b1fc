// Polls a queue of messages and receipts: works on each item once, then deletes the message. One that fails comes back.

import { randomUUID } from "node:crypto";
import {
  ConditionalCheckFailedException,
  DeleteItemCommand,
  DynamoDBClient,
  PutItemCommand,
  UpdateItemCommand,
} from "@aws-sdk/client-dynamodb";
import { GetObjectCommand, S3Client } from "@aws-sdk/client-s3";
import { type Message, SQSClient } from "@aws-sdk/client-sqs";
import { Consumer } from "sqs-consumer";

// The members of Meta's types that the work needs. Meta adds members, types and values to all of them.
type Item = { id?: string; type?: string; status?: string; code?: number; title?: string };
type Kind = "messages" | "statuses" | "errors";
type Change = { field?: string; value: Partial<Record<Kind, Item[]>> };
type Attributes = Partial<Record<string, string>>;

// In seconds. A claim lasts longer than the work on an item, and shorter than the visibility timeout.
const VISIBILITY_TIMEOUT = Number(process.env.VISIBILITY_TIMEOUT ?? 180);
const LEASE = VISIBILITY_TIMEOUT / 3;
// Meta retries for 7 days, and a queue keeps a message for 14 days.
const MAX_COPY_AGE = 21 * 24 * 60 * 60;

const TableName = process.env.HANDLED_TABLE;
const dynamodb = new DynamoDBClient();
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
    const { field, value }: Change = JSON.parse(await bodyOf(message, attributes)).entry[0].changes[0];
    // All three lists, whatever the attribute `kind`: it names only the first that is not empty.
    const items = (["messages", "statuses", "errors"] as const).flatMap((kind) =>
      arrayOf(value[kind]).map((item, position) => ({ kind, item, key: `${attributes.event_id} ${kind} ${position}` })),
    );
    // This ends as a dead letter, which somebody looks at.
    if (field !== "messages" || !items.length) throw new Error("neither a message nor a receipt nor an error");
    // An item that fails does not hold up the others.
    const failures: unknown[] = [];
    for (const { kind, item, key } of items) {
      await once(key, () => work(kind, item, key)).catch((error: unknown) => failures.push(error));
    }
    if (failures.length) throw failures[0];
    // Only the returned messages are deleted.
    return message;
  },
});

// Meta's types are not checked by the function that fills the queue.
function arrayOf(list: Item[] | undefined): Item[] {
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

// Handles an item that is not done. The claim ends by itself if this process ends before the item is done.
async function once(key: string, work: () => Promise<void>): Promise<void> {
  const now = Math.floor(Date.now() / 1000);
  const claim = randomUUID();
  const item = { id: { S: key }, claimed_by: { S: claim }, claimed_until: { N: `${now + LEASE}` }, expires: { N: `${now + MAX_COPY_AGE}` } };
  try {
    await dynamodb.send(new PutItemCommand({
      TableName,
      Item: item,
      ConditionExpression: "attribute_not_exists(id) OR claimed_until < :now",
      ExpressionAttributeValues: { ":now": { N: `${now}` } },
      ReturnValuesOnConditionCheckFailure: "ALL_OLD",
    }));
  } catch (error) {
    if (error instanceof ConditionalCheckFailedException && error.Item && !error.Item.claimed_until) return; // done
    // Another has the claim, or the table cannot be reached: the message comes back.
    throw error;
  }
  const own = {
    TableName,
    Key: { id: item.id },
    ConditionExpression: "claimed_by = :claim",
    ExpressionAttributeValues: { ":claim": item.claimed_by },
  };
  try {
    await work();
  } catch (error) {
    await dynamodb.send(new DeleteItemCommand(own));
    throw error;
  }
  // Done.
  await dynamodb.send(new UpdateItemCommand({ ...own, UpdateExpression: "REMOVE claimed_until" }));
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
