// Reads a JSON list of bodies and says for each what the npm library makes of it: its types, or why there is none.

import { readFileSync } from "node:fs";
import { read } from "../examples/node-poller/read.js";

function madeOf(body) {
  try {
    const { messages, statuses } = read(body);
    const types = [...messages.map(typeOf), ...statuses.map(({ status }) => `status ${status}`)];
    return types.join(", ") || "no type";
  } catch (error) {
    return error.message;
  }
}

// A message has what its type says, under the name of its type.
function typeOf(message) {
  const known = message.type === "unsupported" || typeof message[message.type] === "object";
  return known && message.id && message.timestamp ? message.type : `no ${message.type}`;
}

console.log(JSON.stringify(JSON.parse(readFileSync(0, "utf8")).map(madeOf)));
