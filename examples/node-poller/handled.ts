// Handles each item once, with a DynamoDB table whose key is the text `id` and whose TTL attribute is `expires`.

import { randomUUID } from "node:crypto";
import {
  ConditionalCheckFailedException,
  DeleteItemCommand,
  DynamoDBClient,
  PutItemCommand,
  UpdateItemCommand,
} from "@aws-sdk/client-dynamodb";
import { work } from "./work.js";

// In seconds. A claim lasts longer than the work on an item, and shorter than the visibility timeout.
export const VISIBILITY_TIMEOUT = Number(process.env.VISIBILITY_TIMEOUT ?? 180);
const LEASE = VISIBILITY_TIMEOUT / 3;
// Copies come within these seconds: Meta retries for 7 days, a queue keeps a message for 14, and for 14 more if the operator moves it once.
// On a FIFO queue, these are 49 days.
const MAX_COPY_AGE = 35 * 24 * 60 * 60;

const TableName = process.env.HANDLED_TABLE;
const dynamodb = new DynamoDBClient();

// Handles an item that is not done. The claim ends by itself if this process ends before the item is done.
export async function handle(key: string, kind: string, item: any, value: any): Promise<void> {
  const now = Math.floor(Date.now() / 1000);
  const claim = randomUUID();
  const entry = { id: { S: key }, claimed_by: { S: claim }, claimed_until: { N: `${now + LEASE}` }, expires: { N: `${now + MAX_COPY_AGE}` } };
  try {
    await dynamodb.send(new PutItemCommand({
      TableName,
      Item: entry,
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
    Key: { id: entry.id },
    ConditionExpression: "claimed_by = :claim AND attribute_exists(claimed_until)",
    ExpressionAttributeValues: { ":claim": entry.claimed_by },
  };
  try {
    await work(key, kind, item, value);
  } catch (error) {
    await dynamodb.send(new DeleteItemCommand(own));
    throw error;
  }
  // Done.
  await dynamodb.send(new UpdateItemCommand({ ...own, UpdateExpression: "REMOVE claimed_until" }));
}
