// Drives an org with jsforce and prints what came of it as one JSON object.
// Arguments: the org's URL, client id, client secret, a person's username and password.
import { createRequire } from 'node:module';
const require = createRequire(process.env.HEED_NODE_MODULES + '/');
const { Connection } = require('jsforce');
const [url, clientId, clientSecret, username, password] = process.argv.slice(2);
const open = () => new Connection({ loginUrl: url, instanceUrl: url, version: '62.0', oauth2: { loginUrl: url, clientId, clientSecret } });
const out = {};

const app = open();
out.app = await app.authorize({ grant_type: 'client_credentials' });
const conn = open();
out.person = await conn.login(username, password);
out.identity = (await conn.identity()).username;
try {
  await open().login(username, 'wrong');
} catch (e) {
  out.wrongPassword = e.name;
}

// query and queryMore
let page = await app.query('SELECT Id, LastName FROM Contact');
out.total = page.totalSize;
out.pages = 1;
const ids = page.records.map((r) => r.Id);
while (!page.done) {
  page = await app.queryMore(page.nextRecordsUrl);
  ids.push(...page.records.map((r) => r.Id));
  out.pages++;
}
out.queried = new Set(ids).size;
out.described = (await app.sobject('Contact').describe()).fields.find((f) => f.name === 'SMS_Opt_Out__c').type;

// one record
const made = await conn.sobject('Contact').create({ LastName: 'Jsforce', MobilePhone: '(415) 555-0142' });
out.created = made.success;
out.updated = (await conn.sobject('Contact').update({ Id: made.id, SMS_Opt_Out__c: true })).success;
const read = await conn.sobject('Contact').retrieve(made.id);
out.read = [read.LastName, read.SMS_Opt_Out__c, read.LastModifiedById === out.person.id];
out.deleted = (await conn.sobject('Contact').destroy(made.id)).success;
try {
  await conn.sobject('Contact').update({ Id: made.id, Title: 'x' });
} catch (e) {
  out.updateDeleted = e.errorCode;
}
try {
  await conn.query('SELECT Nope__c FROM Contact');
} catch (e) {
  out.badField = e.errorCode;
}

// a collection of 200, one of them refused
const batch = ids.slice(0, 199).map((Id) => ({ Id, SMS_Opt_Out__c: true }));
batch.push({ Id: made.id, SMS_Opt_Out__c: true });
const saved = await app.sobject('Contact').update(batch, { allOrNone: false });
out.collection = [saved.length, saved.filter((r) => r.success).length, saved[199].errors[0].errorCode ?? saved[199].errors[0].statusCode];

// Bulk API 2.0
app.bulk2.pollInterval = 5;
app.bulk2.pollTimeout = 20000;
const rows = await (await app.bulk2.query('SELECT Id, LastName, LastModifiedBy.Name FROM Contact WHERE SMS_Opt_Out__c = true')).toArray();
out.bulkQuery = [rows.length, rows.every((r) => r.Id.length === 18), rows.some((r) => r['LastModifiedBy.Name'] === 'Heed Integration')];
out.bulkAll = (await (await app.bulk2.query('SELECT Id FROM Contact')).toArray()).length;
const loaded = await app.bulk2.loadAndWaitForResults({
  object: 'Contact', operation: 'update', input: [...ids.slice(0, 300).map((Id) => ({ Id, Title: 'by "bulk", 2' })), { Id: made.id, Title: 'gone' }],
});
out.bulkIngest = [loaded.successfulResults.length, loaded.failedResults.length, loaded.unprocessedRecords.length, loaded.failedResults[0].sf__Error];
out.bulkTitle = (await app.sobject('Contact').retrieve(ids[0])).Title;
try {
  await app.bulk2.query('SELECT COUNT() FROM Contact');
} catch (e) {
  out.bulkRefused = e.errorCode;
}

// the lead mapping, by the Metadata API
const settings = await conn.metadata.read('LeadConvertSettings', 'LeadConvertSettings');
out.mapping = [].concat(settings.objectMapping)[0].mappingFields.map((m) => m.inputField).join(' ');

// a session that ends is renewed by the user's name and password
await conn.query('SELECT Id FROM Organization');
await fetch(url + '/sandbox/knobs', { method: 'PUT', body: '{"expire_tokens":true}' });
out.renewed = (await conn.query('SELECT Id FROM Organization')).totalSize;
console.log(JSON.stringify(out));
