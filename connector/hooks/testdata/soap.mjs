// Sends an outbound message with npm's soap, a client that is generated from the vendor's WSDL.
// usage: node soap.mjs WSDL ENDPOINT, with the notifications as JSON on standard input
import { createRequire } from 'node:module';
const require = createRequire(process.env.HEED_NODE_MODULES + '/');
const soap = require('soap');
const [wsdl, endpoint] = process.argv.slice(2);
let input = '';
for await (const chunk of process.stdin) input += chunk;
const client = await soap.createClientAsync(wsdl, {}, endpoint);
try {
  const [answer] = await client.notificationsAsync(JSON.parse(input));
  console.log(JSON.stringify({ ack: answer.Ack }));
} catch (e) {
  console.log(JSON.stringify({ fault: e.root?.Envelope?.Body?.Fault?.faultstring ?? String(e.message).slice(0, 200), status: e.response?.status }));
}
