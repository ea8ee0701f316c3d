// Sends a body with its length, in chunks and compressed: node ask.mjs URL FILE
import { readFile } from "node:fs/promises";

const [url, file] = process.argv.slice(2);
const body = await readFile(file, "utf8");
const stream = () => new Blob([body]).stream();
const requests = [
  { body },
  { body: stream(), duplex: "half" },
  {
    body: stream().pipeThrough(new CompressionStream("gzip")),
    duplex: "half",
    headers: { "content-encoding": "gzip", "content-type": "application/json" },
  },
];
for (const request of requests) {
  const headers = { "content-type": "application/json" };
  const response = await fetch(url, { method: "POST", headers, ...request });
  console.log(await response.text());
}
