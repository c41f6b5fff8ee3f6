// MQTT.js behind lines of JSON: requests on stdin, answers and events on stdout.
// One process serves all clients of a run. Payloads travel as base64.

import { createRequire } from "node:module";
import { createInterface } from "node:readline";

const mqtt = createRequire(process.env.INTEROP_NODE + "/")("mqtt");
const clients = new Map();

const say = (object) => process.stdout.write(JSON.stringify(object) + "\n");

const operations = {
  connect({ client: name, options }) {
    return new Promise((resolve, reject) => {
      for (const holder of [options.will, options.will?.properties, options.properties]) {
        revive(holder);
      }
      const client = mqtt.connect({ ...options, reconnectPeriod: 0 });
      const state = { client, reason: null, window: 65535 };
      clients.set(name, state);
      client.handleAuth = (packet, next) => {
        // The answer goes out by `authenticate`; MQTT.js wants one at once after a challenge.
        const data = packet.properties?.authenticationData?.toString("base64") ?? "";
        say({ event: "auth", client: name, reason: packet.reasonCode, data });
        if (packet.reasonCode === 0) {
          next();
        }
      };
      client.on("message", (topic, payload, packet) =>
        say({ event: "message", client: name, topic, ...describe(packet, payload) }),
      );
      client.on("disconnect", (packet) => (state.reason = packet.reasonCode ?? null));
      client.on("close", () => {
        reject(new Error("closed"));
        say({ event: "closed", client: name, reason: state.reason });
      });
      client.on("error", reject);
      client.on("connect", (packet) => {
        // MQTT.js leaves it to its user to heed the server's receive maximum.
        state.window = packet.properties?.receiveMaximum ?? 65535;
        resolve({
          session_present: packet.sessionPresent,
          assigned: packet.properties?.assignedClientIdentifier ?? null,
          data: packet.properties?.authenticationData?.toString("base64") ?? "",
        });
      });
    });
  },

  authenticate({ client: name, reason, data }) {
    const { client } = clients.get(name);
    const { authenticationMethod } = client.options.properties;
    const properties = { authenticationMethod, authenticationData: Buffer.from(data, "base64") };
    client._sendPacket({ cmd: "auth", reasonCode: reason, properties });
  },

  subscribe: ({ client, topics, properties }) =>
    new Promise((resolve, reject) => {
      const options = properties ? { properties } : {};
      clients.get(client).client.subscribe(topics, options, (error, granted, packet) =>
        error && !packet ? reject(error) : resolve(packet.granted),
      );
    }),

  unsubscribe: ({ client, filter }) => clients.get(client).client.unsubscribeAsync(filter),

  async publish({ client: name, messages }) {
    const { client, window } = clients.get(name);
    const send = ({ topic, payload, options }) => {
      revive(options.properties);
      return client.publishAsync(topic, Buffer.from(payload, "base64"), options);
    };
    for (let next = 0; next < messages.length; next += window) {
      await Promise.all(messages.slice(next, next + window).map(send));
    }
  },

  disconnect: ({ client, options }) => clients.get(client).client.endAsync(false, options),

  drop({ client }) {
    const state = clients.get(client);
    state.client.stream.destroy();
    return state.client.endAsync(true);
  },

  async close({ client }) {
    await clients.get(client)?.client.endAsync(true);
    clients.delete(client);
  },
};

function revive(holder) {
  for (const key of ["payload", "correlationData", "authenticationData"]) {
    if (typeof holder?.[key] === "string") {
      holder[key] = Buffer.from(holder[key], "base64");
    }
  }
}

function describe(packet, payload) {
  const properties = { ...packet.properties };
  if (properties.correlationData) {
    properties.correlationData = properties.correlationData.toString("base64");
  }
  return {
    payload: payload.toString("base64"),
    qos: packet.qos,
    retain: packet.retain,
    dup: packet.dup,
    properties: { ...properties, userProperties: pairs(properties.userProperties) },
  };
}

// MQTT.js keeps user properties as an object whose values are a string or a list of strings.
function pairs(object) {
  return Object.entries(object ?? {}).flatMap(([name, values]) =>
    [values].flat().map((value) => [name, value]),
  );
}

createInterface({ input: process.stdin }).on("line", async (line) => {
  const request = JSON.parse(line);
  try {
    const result = await operations[request.operation](request);
    say({ answer: request.id, result: result ?? null });
  } catch (error) {
    say({ answer: request.id, error: String(error?.message ?? error) });
  }
});
