// A real authorization server, oidc-provider, on a free port of loopback: its issuer on stdout.
//
// The resource indicator says what a token is like: `urn:interop:RS256`, `urn:interop:ES256` or
// `urn:interop:opaque`; behind that `:short` for a life of `SHORT_S` instead of an hour, and
// `:elsewhere` for another audience.

import { createServer } from "node:http";
import { createRequire } from "node:module";
import { generateKeyPairSync } from "node:crypto";
import { pathToFileURL } from "node:url";

// Its advice on how to set it up for users is not for this.
console.info = console.warn = () => {};
const { resolve } = createRequire(process.env.INTEROP_NODE + "/");
const { default: Provider } = await import(pathToFileURL(resolve("oidc-provider")));

const SHORT_S = Number(process.env.SHORT_S);
const SCOPES = ["mqtt:pub:dev/%u/#", "mqtt:sub:dev/%u/#", "mqtt:sub:news/#"].join(" ");

const jwk = (type, options, extra) => ({
  ...generateKeyPairSync(type, options).privateKey.export({ format: "jwk" }),
  use: "sig",
  ...extra,
});

const client = (client_id, scope) => ({
  client_id,
  client_secret: `${client_id} has a secret`,
  grant_types: ["client_credentials"],
  response_types: [],
  redirect_uris: [],
  ...(scope ? { scope } : {}),
});

function resourceServer(indicator) {
  const [kind, detail] = indicator.replace("urn:interop:", "").split(":");
  const common = {
    scope: SCOPES,
    audience: detail === "elsewhere" ? "mail.interop" : "mqtt.interop",
    accessTokenTTL: detail === "short" ? SHORT_S : 3600,
  };
  return kind === "opaque"
    ? { ...common, accessTokenFormat: "opaque" }
    : { ...common, accessTokenFormat: "jwt", jwt: { sign: { alg: kind } } };
}

const server = createServer().listen(0, "127.0.0.1", () => {
  const issuer = `http://127.0.0.1:${server.address().port}`;
  const provider = new Provider(issuer, {
    clients: [client("device", SCOPES), client("other", SCOPES), client("broker")],
    scopes: SCOPES.split(" "),
    jwks: {
      keys: [
        jwk("rsa", { modulusLength: 2048 }, { kid: "first", alg: "RS256" }),
        jwk("ec", { namedCurve: "P-256" }, { kid: "second", alg: "ES256" }),
      ],
    },
    features: {
      devInteractions: { enabled: false },
      clientCredentials: { enabled: true },
      introspection: { enabled: true },
      revocation: { enabled: true },
      resourceIndicators: {
        enabled: true,
        defaultResource: () => "urn:interop:opaque",
        useGrantedResource: () => true,
        getResourceServerInfo: (_context, indicator) => resourceServer(indicator),
      },
    },
  });
  server.on("request", provider.callback());
  process.stdout.write(`issuer ${issuer}\n`);
});
process.stdin.resume().on("end", () => process.exit(0));
