// The main job with types that openapi-typescript made: node main_job.js <url> <model.zip> <input.zip> <output.zip>
import { readFile, writeFile } from "node:fs/promises";
import createClient from "openapi-fetch";
import type { components, paths } from "./api.js";

const [url, modelZip, inputZip, outputZip] = process.argv.slice(2) as [string, string, string, string];
const client = createClient<paths>({ baseUrl: url });

function check<T>(answer: { data?: T; error?: components["schemas"]["ErrorBody"] }): T {
  if (answer.data === undefined) throw new Error(`${answer.error?.error}: ${answer.error?.detail}`);
  return answer.data;
}

// A generated type says string where bytes are sent.
async function zipBody(path: string) {
  const bytes = await readFile(path);
  return {
    body: bytes as unknown as string,
    bodySerializer: () => bytes,
    headers: { "Content-Type": "application/octet-stream" },
  };
}

const model = check(
  await client.POST("/api/models/", {
    params: { query: { human_readable_id: "wordcount", container_tag: "process:count.py", model_available: true } },
    ...(await zipBody(modelZip)),
  }),
);
const uid: string = check(
  await client.POST("/api/tasks/", {
    params: { query: { human_readable_id: model.human_readable_id } },
    ...(await zipBody(inputZip)),
  }),
);
let task: components["schemas"]["TaskView"];
do {
  task = check(await client.GET("/api/tasks/{uid}/status", { params: { path: { uid }, query: { wait: 60 } } }));
} while (!task.ended_at);
const output = check(
  await client.GET("/api/tasks/{uid}/output", { params: { path: { uid } }, parseAs: "arrayBuffer" }),
) as unknown as ArrayBuffer;
await writeFile(outputZip, new Uint8Array(output));
const models = check(await client.GET("/api/models/"));
const unknown = await client.GET("/api/tasks/{uid}", { params: { path: { uid: "0".repeat(64) } } });
const seen = [task.status, models.map((each) => each.version), unknown.response.status, unknown.error?.error];
console.log(JSON.stringify(seen));
