// A typical implementation of the function in Node.js, with AWS's SDK and promises, bundled as for deployment.

import { createHash, createHmac, randomUUID, timingSafeEqual } from "node:crypto";
import { SQSClient, SendMessageBatchCommand } from "@aws-sdk/client-sqs";
import { SecretsManagerClient, GetSecretValueCommand } from "@aws-sdk/client-secrets-manager";
import { S3Client, PutObjectCommand } from "@aws-sdk/client-s3";

const CALLS = 16;
const ENTRIES = 10;
const BYTES = 1_048_576;
const KINDS = ["messages", "statuses", "errors"];

const requestHandler = { connectionTimeout: 1000, requestTimeout: 2000, httpAgent: { maxSockets: CALLS }, httpsAgent: { maxSockets: CALLS } };
const options = { requestHandler, maxAttempts: 3 };
const sqs = new SQSClient(options);
let s3;

const queues = JSON.parse(process.env.QUEUE_URLS);
const secretRead = new SecretsManagerClient(options)
  .send(new GetSecretValueCommand({ SecretId: process.env.SECRET_ID }))
  .then((response) => JSON.parse(response.SecretString));

export async function handler(event) {
  const secret = await secretRead;
  const method = event.requestContext.http.method;
  if (method === "GET") return challenge(event.queryStringParameters ?? {}, secret);
  if (method !== "POST") return { statusCode: 405 };
  const body = Buffer.from(event.body ?? "", event.isBase64Encoded ? "base64" : "utf8");
  if (!isSigned(body, event.headers["x-hub-signature-256"] ?? "", secret)) return { statusCode: 401 };
  return { statusCode: (await store(body, event.requestContext.requestId)) ? 200 : 503 };
}

function challenge(query, secret) {
  if (query["hub.mode"] !== "subscribe" || !equal(query["hub.verify_token"] ?? "", secret.verify_token)) {
    return { statusCode: 403 };
  }
  const headers = { "content-type": "text/plain; charset=utf-8", "x-content-type-options": "nosniff" };
  return { statusCode: 200, headers, body: query["hub.challenge"] ?? "" };
}

function isSigned(body, header, secret) {
  return equal(header, `sha256=${createHmac("sha256", secret.app_secret).update(body).digest("hex")}`);
}

function equal(one, other) {
  const [a, b] = [Buffer.from(one), Buffer.from(other)];
  return a.length === b.length && timingSafeEqual(a, b);
}

async function store(body, requestId) {
  const byQueue = grouped(messages(body, requestId));
  const batches = [];
  for (const [queue, entries] of byQueue) {
    for await (const batch of inBatches(entries)) batches.push([queue, batch]);
  }
  let stored = true;
  const work = async () => {
    for (let next = batches.shift(); next; next = batches.shift()) stored = (await send(...next)) && stored;
  };
  await Promise.all(Array.from({ length: Math.min(CALLS, batches.length) }, work));
  return stored;
}

function grouped(all) {
  const groups = new Map();
  for (const one of all) {
    if (!groups.has(one.queue)) groups.set(one.queue, []);
    groups.get(one.queue).push(one);
  }
  return groups;
}

function* messages(body, requestId) {
  let envelope;
  try {
    envelope = JSON.parse(body);
  } catch {
    // Kept as it is, below.
  }
  if (!Array.isArray(envelope?.entry)) {
    yield { queue: queues["*"], entry: { MessageBody: body.toString(), MessageAttributes: {} } };
    return;
  }
  for (const entry of envelope.entry) {
    for (const change of entry.changes) yield message(envelope, entry, change, requestId);
  }
}

function message(envelope, entry, change, requestId) {
  const value = change.value ?? {};
  const kind = KINDS.find((kind) => value[kind]?.length);
  const text = JSON.stringify({ ...envelope, entry: [{ ...entry, changes: [change] }] });
  const attributes = {
    field: change.field,
    entry_id: entry.id,
    kind,
    phone_number_id: value.metadata?.phone_number_id,
    event_id: createHash("sha256").update(text).digest("hex"),
    request_id: requestId,
  };
  const queue = queues[`${change.field}.${kind}`] ?? queues[change.field] ?? queues["*"];
  const set = Object.entries(attributes).filter(([, value]) => value);
  return {
    queue: queue.includes("/") ? queue : queues["*"].replace(/[^/]*$/, queue),
    entry: {
      MessageBody: text,
      MessageAttributes: Object.fromEntries(set.map(([name, value]) => [name, { DataType: "String", StringValue: String(value) }])),
      MessageGroupId: attributes.phone_number_id ?? attributes.entry_id ?? "-",
    },
  };
}

async function* inBatches(all) {
  let [batch, size] = [[], 0];
  for (let { entry } of all) {
    let length = sizeOf(entry);
    if (length > BYTES) {
      entry = await claimCheck(entry);
      length = sizeOf(entry);
    }
    if (batch.length && (batch.length === ENTRIES || size + length > BYTES)) {
      yield batch;
      [batch, size] = [[], 0];
    }
    batch.push({ ...entry, Id: String(batch.length) });
    size += length;
  }
  if (batch.length) yield batch;
}

function sizeOf(entry) {
  const attributes = Object.entries(entry.MessageAttributes);
  const bytes = (text) => Buffer.byteLength(text);
  const ofAttributes = attributes.reduce((sum, [name, value]) => sum + name.length + "String".length + bytes(value.StringValue), 0);
  return bytes(entry.MessageBody) + ofAttributes;
}

async function claimCheck(entry) {
  s3 ??= new S3Client({ ...options, forcePathStyle: Boolean(process.env.AWS_ENDPOINT_URL) });
  const Body = Buffer.from(entry.MessageBody);
  const [Bucket, Key] = [process.env.PAYLOAD_BUCKET, randomUUID()];
  await s3.send(new PutObjectCommand({ Bucket, Key, Body, ContentType: "application/json" }));
  const pointer = ["software.amazon.payloadoffloading.PayloadS3Pointer", { s3BucketName: Bucket, s3Key: Key }];
  const ExtendedPayloadSize = { DataType: "Number", StringValue: String(Body.length) };
  return { ...entry, MessageBody: JSON.stringify(pointer), MessageAttributes: { ...entry.MessageAttributes, ExtendedPayloadSize } };
}

// Sends a batch, and what SQS refused of it once more; says whether all is stored.
async function send(QueueUrl, batch) {
  for (let attempt = 0; attempt < 2 && batch.length; attempt += 1) {
    const { Failed = [] } = await sqs.send(new SendMessageBatchCommand({ QueueUrl, Entries: batch }));
    const failed = new Set(Failed.map((entry) => entry.Id));
    batch = batch.filter((entry) => failed.has(entry.Id));
  }
  return batch.length === 0;
}
