// Prints the errors of an AsyncAPI document, as a JSON array of texts.
import { Parser } from "@asyncapi/parser";
import { text } from "node:stream/consumers";

const { diagnostics } = await new Parser().parse(await text(process.stdin));
const errors = diagnostics.filter(({ severity }) => severity === 0);
console.log(JSON.stringify(errors.map(({ message, path }) => `${path.join(".")}: ${message}`)));
