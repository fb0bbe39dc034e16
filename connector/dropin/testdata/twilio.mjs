// Drives the Messages API with Twilio's own Node library, of which nothing but the base URL is changed.
// usage: node twilio.mjs BASE ACCOUNT_SID PASSWORD FROM ADA EVE SERVICE; prints what it got, as JSON
import { createRequire } from 'node:module';
const require = createRequire(process.env.HEED_NODE_MODULES + '/');
const twilio = require('twilio');
const [base, sid, password, from, ada, eve, service] = process.argv.slice(2);
const client = twilio(sid, password);
client.api.baseUrl = base;

const plain = (m) => JSON.parse(JSON.stringify(m));
const attempt = async (fn) => {
  try {
    return { object: plain(await fn()) };
  } catch (e) {
    return { exception: e.constructor.name, code: e.code, status: e.status, moreInfo: e.moreInfo };
  }
};
const out = {};
out.sent = await attempt(() => client.messages.create({ to: ada, from, body: 'hello' }));
out.fetched = await attempt(() => client.messages(out.sent.object.sid).fetch());
out.list = await attempt(async () => (await client.messages.list({ to: ada, limit: 5 })).map((m) => m.body));
out.optedOut = await attempt(() => client.messages.create({ to: eve, from, body: 'hello' }));
out.noBody = await attempt(() => client.messages.create({ to: ada, from }));
out.noNumber = await attempt(() => client.messages.create({ to: 'me', from, body: 'hello' }));
const later = new Date(Date.now() + 3600e3);
out.scheduled = await attempt(() => client.messages.create({ to: ada, messagingServiceSid: service, body: 'later', scheduleType: 'fixed', sendAt: later }));
out.tooSoon = await attempt(() => client.messages.create({ to: ada, messagingServiceSid: service, body: 'later', scheduleType: 'fixed', sendAt: new Date() }));
out.canceled = await attempt(() => client.messages(out.scheduled.object.sid).update({ status: 'canceled' }));
out.unknown = await attempt(() => client.messages('SM' + '0'.repeat(32)).fetch());
const stranger = twilio(sid, 'wrong');
stranger.api.baseUrl = base;
out.stranger = await attempt(() => stranger.messages.create({ to: ada, from, body: 'hello' }));
console.log(JSON.stringify(out));
