// The members of Meta's types that the work needs. Meta adds members, types and values to all of them.
type Item = { id?: string; type?: string; status?: string; code?: number; title?: string };

// The value that contains the item. It also has `contacts`, the names and ids of the people.
type Value = { metadata?: { phone_number_id?: string } };

// The place for your own code: a message, a receipt (`statuses`) or an error. Copies have the same key.
export async function work(key: string, kind: string, item: Item, value: Value): Promise<void> {
  const { id, type, status, code, title } = item;
  console.log(JSON.stringify({ key, kind, id, type, status, code, title, number: value.metadata?.phone_number_id }));
}
