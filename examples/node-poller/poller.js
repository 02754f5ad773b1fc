// Polls a queue of messages and receipts: work first, then the message is deleted; what fails comes back.

import { GetObjectCommand, S3Client } from "@aws-sdk/client-s3";
import { SQSClient } from "@aws-sdk/client-sqs";
import { Consumer } from "sqs-consumer";
import { read } from "./read.js";

const s3 = new S3Client({ forcePathStyle: Boolean(process.env.AWS_ENDPOINT_URL) });

const consumer = Consumer.create({
  queueUrl: process.env.QUEUE_URL,
  sqs: new SQSClient({ useQueueUrlAsEndpoint: false }),
  batchSize: 10,
  waitTimeSeconds: 20,
  messageAttributeNames: ["All"],
  // A long poll that is under way may bring messages, which are still worked on.
  pollingCompleteWaitTimeMs: 30_000,
  handleMessage: async (message) => {
    const attributes = Object.fromEntries(
      Object.entries(message.MessageAttributes ?? {}).map(([name, value]) => [name, value.StringValue]),
    );
    await work(read(await bodyOf(message, attributes)), attributes);
    // Only what is returned is deleted.
    return message;
  },
});

async function bodyOf(message, attributes) {
  if (!attributes.ExtendedPayloadSize) return message.Body;
  const [, where] = JSON.parse(message.Body);
  const object = await s3.send(new GetObjectCommand({ Bucket: where.s3BucketName, Key: where.s3Key }));
  return object.Body.transformToString();
}

// The place for your own code; event_id tells a copy.
async function work({ messages, statuses, errors }, { event_id }) {
  for (const { id, type } of messages) console.log(JSON.stringify({ event_id, id, type }));
  for (const { id, status } of statuses) console.log(JSON.stringify({ event_id, id, status }));
  for (const { code, title } of errors) console.log(JSON.stringify({ event_id, code, title }));
}

consumer.on("error", (error) => console.error(`SQS: ${error.message}`));
consumer.on("processing_error", (error) => console.error(`not handled: ${error.message}`));
for (const signal of ["SIGINT", "SIGTERM"]) process.once(signal, () => consumer.stop());
consumer.start();
