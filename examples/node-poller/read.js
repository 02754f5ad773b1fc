import { normalizeWebhook } from "@kapso/whatsapp-cloud-api/server";

// Reads a body from the queue, which is a notification with one change. Throws on what the library would pass over in
// silence, so that it ends as a dead letter and not as nothing. Errors of the account are none of the library's types.
export function read(body) {
  const notification = JSON.parse(body);
  const { value } = notification.entry[0].changes[0];
  const { messages, statuses } = normalizeWebhook(notification);
  const read = (items, all = []) => items.length === all.length && items.every(({ id }) => id);
  if (!read(messages, value.messages)) throw new Error("cannot read all messages");
  if (!read(statuses, value.statuses)) throw new Error("cannot read all statuses");
  return { messages, statuses, errors: value.errors ?? [] };
}
