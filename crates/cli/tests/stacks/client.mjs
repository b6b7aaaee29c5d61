// Stock clients of Node: @grpc/grpc-js, and fetch with the Agent of undici, in HTTP/2 and HTTP/1.1. Each has a
// certificate, its key and the authorities that it trusts, and says what becomes of each thing that it tries.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { once } from "node:events";
import { setTimeout as sleep } from "node:timers/promises";

const [what, target, certificate, key, authorities, kind] = process.argv.slice(2);
// The libraries lie where they were installed: INTEROP_NODE is that directory.
const libraries = createRequire(`${process.env.INTEROP_NODE}/package.json`);
const [cert, secret, ca] = [certificate, key, authorities].map((path) => readFileSync(path));

const say = (name, ...words) => console.log(name, ...words);
const line = () => once(process.stdin, "data");

/** An answer that is no answer: the connection is gone, or not there yet. It is what a client tries again. */
async function settled(call, gone) {
  let said;
  for (let i = 0; i < 100; i++) {
    said = await call();
    if (!gone(said)) break;
    await sleep(200);
  }
  return said;
}

function grpc() {
  const grpc = libraries("@grpc/grpc-js");
  const HEALTH = "/grpc.health.v1.Health/";
  const WHOAMI = "/countersign.v1.Whoami/Whoami";
  const same = (bytes) => bytes;
  const client = new grpc.Client(target, grpc.credentials.createSsl(ca, secret, cert));
  const status = (error) => `${grpc.status[error.code]} ${error.details}`;
  const options = (millis) => ({ deadline: Date.now() + millis });
  const unary = (method) =>
    new Promise((done) => {
      const answered = (error, message) => done(error ? status(error) : message.toString("hex"));
      client.makeUnaryRequest(method, same, same, Buffer.alloc(0), options(30_000), answered);
    });
  /** Messages, then the status, one by one. */
  const watch = (millis) => {
    const call = client.makeServerStreamRequest(HEALTH + "Watch", same, same, Buffer.alloc(0), options(millis));
    const [come, waiting] = [[], []];
    const put = (said) => (waiting.length ? waiting.shift()(said) : come.push(said));
    call.on("data", (message) => put(message.toString("hex")));
    call.on("error", (error) => put(status(error)));
    return { call, next: () => (come.length ? come.shift() : new Promise((done) => waiting.push(done))) };
  };
  const gone = (said) => said.startsWith("UNAVAILABLE");
  return {
    version: `@grpc/grpc-js ${libraries("@grpc/grpc-js/package.json").version}, Node ${process.version}`,
    async calls() {
      say("unary", await unary(HEALTH + "Check"));
      say("whoami", await unary(WHOAMI));
      say("denied", await unary("/shop.Orders/Place"));
      const late = watch(1000);
      say("stream", await late.next());
      say("deadline", await late.next());
      const stream = watch(60_000);
      await stream.next();
      stream.call.cancel();
      say("cancelled", await stream.next());
      say("alive", await unary(HEALTH + "Check"));
    },
    async watch() {
      const stream = watch(120_000);
      say("stream", await stream.next());
      say("watching");
      say("cut", await stream.next());
      say("again", await settled(() => unary(WHOAMI), gone));
    },
    async restart() {
      say("before", await unary(HEALTH + "Check"));
      const stream = watch(120_000);
      say("stream", await stream.next());
      say("open");
      say("stopped", await stream.next());
      await line();
      say("after", await settled(() => unary(HEALTH + "Check"), gone));
    },
  };
}

function http(allowH2) {
  const { Agent } = libraries("undici");
  const dispatcher = new Agent({ allowH2, connect: { cert, key: secret, ca } });
  const page = (path, options) => fetch(`https://${target}${path}`, { dispatcher, ...options });
  const outcome = async (call) => {
    try {
      return await call();
    } catch (error) {
      return `failed ${error.name}: ${error.message} ${error.cause ?? ""}`;
    }
  };
  const get = (path) =>
    outcome(async () => {
      const answer = await page(path);
      return `${answer.status} ${(await answer.text()).trim()}`;
    });
  /** The body of a page that never ends, after its first piece. */
  const ticks = async (options) => {
    const body = (await page("/ticks", options)).body.getReader();
    say("stream", Buffer.from((await body.read()).value).toString().trim());
    return async () => {
      for (;;) if ((await body.read()).done) return "ended";
    };
  };
  const gone = (said) => said.startsWith("failed") || said.startsWith("503");
  return {
    version: `undici ${libraries("undici/package.json").version}, Node ${process.version}`,
    async calls() {
      say("unary", await get("/orders"));
      say("denied", await get("/secret"));
      say("deadline", await outcome(await ticks({ signal: AbortSignal.timeout(1000) })));
      const control = new AbortController();
      const rest = await ticks({ signal: control.signal });
      control.abort();
      say("cancelled", await outcome(rest));
      say("alive", await get("/orders"));
    },
    async watch() {
      const rest = await ticks();
      say("watching");
      say("cut", await outcome(rest));
      say("again", await settled(() => get("/orders"), gone));
    },
    async restart() {
      say("before", await get("/orders"));
      const rest = await ticks();
      say("open");
      say("stopped", await outcome(rest));
      await line();
      say("after", await settled(() => get("/orders"), gone));
    },
  };
}

const client = { grpc, 2: () => http(true), 1: () => http(false) }[kind]();
say("version", client.version);
await client[what]();
process.exit(0);
