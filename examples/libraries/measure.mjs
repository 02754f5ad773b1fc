// Prints the ids that a library of npm hands over of each body on standard input, or null where it throws.

import { readFileSync } from "node:fs";

// The work of a consumer, which fails for one of the ids.
function keep({ id }) {
  if (id === "wamid.failing") throw new Error(id);
  return id;
}

const readers = {
  "@kapso/whatsapp-cloud-api": async () => {
    const { normalizeWebhook } = await import("@kapso/whatsapp-cloud-api/server");
    return (body) => {
      const { messages, statuses } = normalizeWebhook(JSON.parse(body));
      return [...messages, ...statuses].map(keep);
    };
  },
  "whatsapp-api-js": async () => {
    const { WhatsAppAPI } = await import("whatsapp-api-js");
    const whatsapp = new WhatsAppAPI({ token: "token", secure: false });
    let ids = [];
    whatsapp.on.message = ({ message }) => void ids.push(keep(message));
    whatsapp.on.status = (status) => void ids.push(keep(status));
    return async (body) => {
      ids = [];
      await whatsapp.post(JSON.parse(body));
      return ids;
    };
  },
};

const read = await readers[process.argv[2]]();
const found = [];
for (const body of JSON.parse(readFileSync(0))) {
  try {
    found.push(await read(body));
  } catch {
    found.push(null);
  }
}
console.log(JSON.stringify(found));
