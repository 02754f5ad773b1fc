// Generated from message.schema.json by `make contract`.
// The types describe what Meta documents. The function checks only the attributes, `entry` and `changes`, and on the queue of a
// route that `field` is a text. Check the type of every other member before you use it: `value` can be null, a list or a text.

/**
 * What the Amazon SQS Extended Client Library writes in place of a body that is in S3.
 *
 * @minItems 2
 * @maxItems 2
 */
export type Pointer = ["software.amazon.payloadoffloading.PayloadS3Pointer", S3Object];

/**
 * What a consumer received. The attributes decide what the body is, see docs/contract.md.
 */
export interface Message {
  attributes: Attributes;
  body:
    | Notification
    | Pointer
    | string
    | {
        [k: string]: unknown;
      }
    | unknown[];
}
/**
 * The message attributes by name. Ignore a name that is not here: a later release added it.
 */
export interface Attributes {
  /**
   * The same on copies of the message, except on some that Meta sends later.
   */
  event_id: string;
  /**
   * API Gateway's id of the request.
   */
  request_id?: string;
  /**
   * Meta's name of the change.
   */
  field?: string;
  /**
   * The first of these lists in the change's value that is not empty.
   */
  kind?: "messages" | "statuses" | "errors";
  /**
   * The WhatsApp Business account, for partner fields the business portfolio.
   */
  entry_id?: string;
  /**
   * The business phone number.
   */
  phone_number_id?: string;
  /**
   * Why no queue of a route got the message from the function. It is on the catch-all queue, unless the operator replayed it to another.
   */
  unrouted_reason?: "no-route" | "no-field" | "not-json" | "not-a-notification" | "queue-unavailable";
  /**
   * The name of the queue that did not store the message.
   */
  diverted_from?: string;
  /**
   * The body is base64.
   */
  encoding?: "base64";
  /**
   * When the operator sent the message again from the archive, in UTC.
   */
  replayed?: string;
  /**
   * The size in bytes of a body in S3.
   */
  ExtendedPayloadSize?: string;
}
/**
 * The usual body: what Meta sent, with one entry and in it one change. Meta's documentation describes the value.
 */
export interface Notification {
  object?: string;
  /**
   * @minItems 1
   * @maxItems 1
   */
  entry: [Entry];
}
export interface Entry {
  id?: string;
  /**
   * Seconds since 1970, when Meta sent the notification.
   */
  time?: number;
  /**
   * @minItems 1
   * @maxItems 1
   */
  changes: [Change];
}
export interface Change {
  field?: string;
  value?: {
    [k: string]: unknown;
  };
}
export interface S3Object {
  s3BucketName: string;
  s3Key: string;
}
