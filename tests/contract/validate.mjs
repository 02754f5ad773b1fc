// Validates messages with Ajv in strict mode. Reads [schema, messages], prints the list of errors of each message.
import Ajv from "ajv/dist/2020.js";
import { json } from "node:stream/consumers";

const [schema, messages] = await json(process.stdin);
const validate = new Ajv({ strict: true, allErrors: true }).compile(schema);
console.log(JSON.stringify(messages.map((message) => (validate(message) ? [] : validate.errors))));
