// The official Node client, for tests: the same as client.py.
import { createRequire } from "node:module";
import { createInterface } from "node:readline";

const { default: OpenAI } = await import(createRequire(process.env.MIGRATE_LLM + "/").resolve("openai"));
const say = what => process.stdout.write(JSON.stringify(what) + "\n");

async function plain(client, question) {
  const ids = new Set(), finish = [];
  let roles = 0, text = "", usage = null;
  const stream = await client.chat.completions.create({ ...question, stream: true, stream_options: { include_usage: true } });
  for await (const chunk of stream) {
    ids.add(chunk.id);
    usage = chunk.usage ?? usage;
    for (const choice of chunk.choices) {
      if (choice.delta.role) roles++;
      if (choice.delta.content) { text += choice.delta.content; say({ piece: choice.delta.content }); }
      if (choice.finish_reason) finish.push(choice.finish_reason);
    }
  }
  return { text, finish, ids: ids.size, roles, usage };
}

async function helper(client, question) {
  const stream = client.chat.completions.stream({ ...question, stream: true, stream_options: { include_usage: true } });
  stream.on("content", delta => say({ piece: delta }));
  const whole = await stream.finalChatCompletion();
  const choice = whole.choices[0];
  return { text: choice.message.content, finish: [choice.finish_reason], ids: 1, roles: 1, usage: whole.usage };
}

for await (const line of createInterface({ input: process.stdin })) {
  const ask = JSON.parse(line);
  const client = new OpenAI({ baseURL: ask.url, apiKey: "none", timeout: 120_000 });
  const question = {
    model: ask.model, messages: [{ role: "user", content: ask.message }],
    max_tokens: ask.max_tokens, temperature: 0, cache_prompt: false, ...(ask.more ?? {}),
  };
  try {
    say({ answer: await { plain, helper }[ask.how](client, question) });
  } catch (error) {
    say({ error: error.constructor.name + ": " + error.message });
  }
}
