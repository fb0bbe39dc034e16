package salesforcefake

import (
	"fmt"
	"strings"
)

// Type is a field type, by the name that describe uses.
type Type string

// Field types.
const (
	Checkbox  Type = "boolean"
	Text      Type = "string"
	TextArea  Type = "textarea" // long text: cannot be filtered or sorted
	Picklist  Type = "picklist"
	DateTime  Type = "datetime"
	Date      Type = "date"
	Phone     Type = "phone"
	Email     Type = "email"
	URL       Type = "url"
	Number    Type = "double"
	Reference Type = "reference"
	anyType   Type = "anyType" // OldValue and NewValue of a history
	typeID    Type = "id"
)

// Field describes one field of an object, for Options.Fields and AddField.
type Field struct {
	Object string // Contact, Lead, Account
	Name   string // API name with its namespace and suffix: SMS_Opt_Out__c, ns__SMSOptOut__c
	Label  string // "" takes the name
	Type   Type
	Length int // characters, for text types; 0 takes 255, or 40 for Phone

	Required   bool     // must be set and never null
	ExternalID bool     // may stand in /sobjects/X/{field}/{value}
	Unique     bool     // no two records share a value
	Restricted bool     // Picklist: only Values are taken
	Values     []string // Picklist
	Default    any      // value of a new record that does not set the field

	// Formula makes the field calculated and read-only. get returns the record's other fields as string, bool,
	// float64 or nil. Like in Salesforce, a new result does not touch SystemModstamp.
	Formula func(get func(name string) any) any
}

// Access is what the integration user may do with a field (field-level security).
type Access int

// Access levels.
const (
	ReadWrite Access = iota
	ReadOnly         // writing it fails: INVALID_FIELD_FOR_INSERT_UPDATE
	Hidden           // as if the field did not exist: INVALID_FIELD
)

// sysKind marks fields that live in the row itself or are derived from it.
type sysKind uint8

const (
	sysNone sysKind = iota
	sysID
	sysDeleted
	sysMaster
	sysOwner
	sysCreatedDate
	sysCreatedBy
	sysModifiedDate
	sysModifiedBy
	sysStamp
	sysName // first and last name together
)

type field struct {
	Field
	slot     uint8
	sys      sysKind
	refTo    string // Reference: the object it points to
	relation string // Reference: the name used in SOQL paths
	mirror   *field // of a person account: the field of its Contact that holds the same
	system   bool   // set by Salesforce alone
}

func (f *field) custom() bool {
	return strings.HasSuffix(f.Name, "__c") || strings.HasSuffix(f.Name, "__pc")
}
func (f *field) textual() bool {
	switch f.Type {
	case Text, TextArea, Picklist, Phone, Email, URL:
		return true
	}
	return false
}

// isID says whether values are ids, whose order is that of their bytes.
func (f *field) isID() bool { return f.Type == typeID || f.Type == Reference }

func (f *field) filterable() bool { return f.Type != TextArea && f.Type != anyType }

func (f *field) writable() bool {
	return !f.system && f.Formula == nil && (f.sys == sysNone || f.sys == sysOwner)
}

type object struct {
	name, label, plural, prefix string
	readOnly                    bool   // through the API
	historyOf                   string // the object whose changes it records
	fields                      []*field
	byName                      map[string]*field // lower case
	byRelation                  map[string]*field // lower case
}

func (ob *object) field(name string) *field { return ob.byName[strings.ToLower(name)] }

func (ob *object) add(f field) (*field, error) {
	key := strings.ToLower(f.Name)
	switch {
	case f.Name == "":
		return nil, fmt.Errorf("field of %s has no name", ob.name)
	case ob.byName[key] != nil:
		return nil, fmt.Errorf("field %s.%s exists already", ob.name, f.Name)
	case len(ob.fields) > 250:
		return nil, fmt.Errorf("object %s has too many fields", ob.name)
	}
	if f.Label == "" {
		f.Label = strings.ReplaceAll(strings.TrimSuffix(f.Name, "__c"), "_", " ")
	}
	if f.Length == 0 {
		switch f.Type {
		case Phone:
			f.Length = 40
		case Text, Picklist, URL:
			f.Length = 255
		case Email:
			f.Length = 80
		case TextArea:
			f.Length = 32000
		case Reference, typeID:
			f.Length = 18
		}
	}
	f.slot = uint8(len(ob.fields))
	n := &f
	ob.fields = append(ob.fields, n)
	ob.byName[key] = n
	if n.relation != "" {
		ob.byRelation[strings.ToLower(n.relation)] = n
	}
	return n, nil
}

func newObject(name, plural, prefix string) *object {
	return &object{name: name, label: name, plural: plural, prefix: prefix,
		byName: map[string]*field{}, byRelation: map[string]*field{}}
}

// define adds standard fields from lines of "Name|Label|type|length|flags"; flags: r required, s system.
func (ob *object) define(lines string) {
	for line := range strings.Lines(lines) {
		line = strings.TrimSpace(line)
		if line == "" {
			continue
		}
		p := strings.Split(line, "|")
		f := field{Field: Field{Object: ob.name, Name: p[0], Label: p[1], Type: Type(p[2])}}
		fmt.Sscan(p[3], &f.Length)
		f.Required = strings.Contains(p[4], "r")
		f.system = strings.Contains(p[4], "s")
		if _, err := ob.add(f); err != nil {
			panic(err) // a mistake in the tables below
		}
	}
}

func (ob *object) reference(name, label, relation, to string, sys sysKind, system bool) {
	if _, err := ob.add(field{Field: Field{Object: ob.name, Name: name, Label: label, Type: Reference},
		relation: relation, refTo: to, sys: sys, system: system}); err != nil {
		panic(err)
	}
}

func (ob *object) sysField(name, label string, t Type, k sysKind) {
	if _, err := ob.add(field{Field: Field{Object: ob.name, Name: name, Label: label, Type: t}, sys: k, system: true}); err != nil {
		panic(err)
	}
}

func (ob *object) audit() {
	ob.sysField("CreatedDate", "Created Date", DateTime, sysCreatedDate)
	ob.reference("CreatedById", "Created By ID", "CreatedBy", "User", sysCreatedBy, true)
	ob.sysField("LastModifiedDate", "Last Modified Date", DateTime, sysModifiedDate)
	ob.reference("LastModifiedById", "Last Modified By ID", "LastModifiedBy", "User", sysModifiedBy, true)
	ob.sysField("SystemModstamp", "System Modstamp", DateTime, sysStamp)
}

var optOutNames = []string{"SMS_Opt_Out__c", "SMS_Opt_Out_Date__c", "SMS_Opt_Out_Source__c", "SMS_Opt_Out_Text__c"}

func (ob *object) optOutFields() {
	for _, f := range []Field{
		{Name: "SMS_Opt_Out__c", Label: "SMS Opt Out", Type: Checkbox},
		{Name: "SMS_Opt_Out_Date__c", Label: "SMS Opt Out Date", Type: DateTime},
		{Name: "SMS_Opt_Out_Source__c", Label: "SMS Opt Out Source", Type: Text, Length: 40},
		{Name: "SMS_Opt_Out_Text__c", Label: "SMS Opt Out Text", Type: Text, Length: 255},
	} {
		f.Object = ob.name
		if _, err := ob.add(field{Field: f}); err != nil {
			panic(err)
		}
	}
}

// standardObjects follows the field types and lengths of the vendor's object reference (Contact, Lead, Account, User,
// Organization), as far as consent work touches them.
func standardObjects() []*object {
	contact := newObject("Contact", "Contacts", "003")
	contact.sysField("Id", "Contact ID", typeID, sysID)
	contact.sysField("IsDeleted", "Deleted", Checkbox, sysDeleted)
	contact.reference("MasterRecordId", "Master Record ID", "MasterRecord", "Contact", sysMaster, true)
	contact.reference("AccountId", "Account ID", "Account", "Account", sysNone, false)
	contact.define(`
		LastName|Last Name|string|80|r
		FirstName|First Name|string|40|
		Salutation|Salutation|picklist|40|
		OtherPhone|Other Phone|phone|40|
		Phone|Business Phone|phone|40|
		Fax|Business Fax|phone|40|
		MobilePhone|Mobile Phone|phone|40|
		HomePhone|Home Phone|phone|40|
		AssistantPhone|Asst. Phone|phone|40|
		MailingStreet|Mailing Street|textarea|255|
		MailingCity|Mailing City|string|40|
		MailingState|Mailing State/Province|string|80|
		MailingPostalCode|Mailing Zip/Postal Code|string|20|
		MailingCountry|Mailing Country|string|80|
		Email|Email|email|80|
		Title|Title|string|128|
		Department|Department|string|80|
		AssistantName|Assistant's Name|string|40|
		LeadSource|Lead Source|picklist|255|
		Birthdate|Birthdate|date|0|
		Description|Contact Description|textarea|32000|
		HasOptedOutOfEmail|Email Opt Out|boolean|0|
		HasOptedOutOfFax|Fax Opt Out|boolean|0|
		DoNotCall|Do Not Call|boolean|0|`)
	contact.sysField("Name", "Full Name", Text, sysName)
	contact.field("Name").Length = 121
	contact.reference("OwnerId", "Owner ID", "Owner", "User", sysOwner, false)
	contact.audit()
	contact.optOutFields()

	lead := newObject("Lead", "Leads", "00Q")
	lead.sysField("Id", "Lead ID", typeID, sysID)
	lead.sysField("IsDeleted", "Deleted", Checkbox, sysDeleted)
	lead.reference("MasterRecordId", "Master Record ID", "MasterRecord", "Lead", sysMaster, true)
	lead.define(`
		LastName|Last Name|string|80|r
		FirstName|First Name|string|40|
		Salutation|Salutation|picklist|40|
		Title|Title|string|128|
		Company|Company|string|255|r
		Street|Street|textarea|255|
		City|City|string|40|
		State|State/Province|string|80|
		PostalCode|Zip/Postal Code|string|20|
		Country|Country|string|80|
		Phone|Phone|phone|40|
		MobilePhone|Mobile Phone|phone|40|
		Fax|Fax|phone|40|
		Email|Email|email|80|
		Website|Website|url|255|
		Description|Description|textarea|32000|
		LeadSource|Lead Source|picklist|255|
		Status|Status|picklist|255|
		Industry|Industry|picklist|255|
		Rating|Rating|picklist|255|
		HasOptedOutOfEmail|Email Opt Out|boolean|0|
		HasOptedOutOfFax|Fax Opt Out|boolean|0|
		DoNotCall|Do Not Call|boolean|0|
		IsConverted|Converted|boolean|0|s
		ConvertedDate|Converted Date|date|0|s
		IsUnreadByOwner|Unread By Owner|boolean|0|`)
	lead.field("Status").Default = "Open - Not Contacted"
	lead.reference("ConvertedAccountId", "Converted Account ID", "ConvertedAccount", "Account", sysNone, true)
	lead.reference("ConvertedContactId", "Converted Contact ID", "ConvertedContact", "Contact", sysNone, true)
	lead.sysField("Name", "Full Name", Text, sysName)
	lead.field("Name").Length = 121
	lead.reference("OwnerId", "Owner ID", "Owner", "User", sysOwner, false)
	lead.audit()
	lead.optOutFields()

	account := newObject("Account", "Accounts", "001")
	account.sysField("Id", "Account ID", typeID, sysID)
	account.sysField("IsDeleted", "Deleted", Checkbox, sysDeleted)
	account.reference("MasterRecordId", "Master Record ID", "MasterRecord", "Account", sysMaster, true)
	account.define(`
		Name|Account Name|string|255|r
		Type|Account Type|picklist|255|
		BillingStreet|Billing Street|textarea|255|
		BillingCity|Billing City|string|40|
		BillingState|Billing State/Province|string|80|
		BillingPostalCode|Billing Zip/Postal Code|string|20|
		BillingCountry|Billing Country|string|80|
		Phone|Account Phone|phone|40|
		Fax|Account Fax|phone|40|
		Website|Website|url|255|
		Industry|Industry|picklist|255|
		Description|Account Description|textarea|32000|`)
	account.reference("ParentId", "Parent Account ID", "Parent", "Account", sysNone, false)
	account.reference("OwnerId", "Owner ID", "Owner", "User", sysOwner, false)
	account.audit()

	user := newObject("User", "Users", "005")
	user.readOnly = true
	user.sysField("Id", "User ID", typeID, sysID)
	user.define(`
		Username|Username|string|80|r
		LastName|Last Name|string|80|r
		FirstName|First Name|string|40|
		CompanyName|Company Name|string|80|
		Title|Title|string|80|
		Email|Email|email|128|
		Phone|Phone|phone|40|
		MobilePhone|Cell|phone|40|
		Alias|Alias|string|8|
		IsActive|Active|boolean|0|
		UserType|User Type|picklist|40|
		TimeZoneSidKey|Time Zone|picklist|40|
		LocaleSidKey|Locale|picklist|40|
		LanguageLocaleKey|Language|picklist|40|`)
	user.sysField("Name", "Full Name", Text, sysName)
	user.reference("ProfileId", "Profile ID", "Profile", "Profile", sysNone, false)
	user.audit()

	profile := newObject("Profile", "Profiles", "00e")
	profile.readOnly = true
	profile.sysField("Id", "Profile ID", typeID, sysID)
	profile.define(`
		Name|Name|string|255|r
		UserType|User Type|picklist|40|`)
	profile.reference("UserLicenseId", "User License ID", "UserLicense", "UserLicense", sysNone, false)
	profile.audit()

	license := newObject("UserLicense", "User Licenses", "100")
	license.readOnly = true
	license.sysField("Id", "User License ID", typeID, sysID)
	license.define(`Name|Name|string|255|r`)
	license.audit()

	org := newObject("Organization", "Organizations", "00D")
	org.readOnly = true
	org.sysField("Id", "Organization ID", typeID, sysID)
	org.define(`
		Name|Name|string|80|r
		Country|Country|string|80|
		Phone|Phone|phone|40|
		PrimaryContact|Primary Contact|string|80|
		OrganizationType|Edition|picklist|40|
		InstanceName|Instance Name|string|5|
		NamespacePrefix|Namespace Prefix|string|15|
		IsSandbox|Is Sandbox|boolean|0|
		TrialExpirationDate|Trial Expiration Date|datetime|0|
		TimeZoneSidKey|Time Zone|picklist|40|
		DefaultLocaleSidKey|Locale|picklist|40|
		LanguageLocaleKey|Language|picklist|40|`)
	org.audit()
	return []*object{account, contact, lead, contact.history(), lead.history(), user, profile, license, org}
}

// history is the object that Salesforce keeps the tracked changes of ob in.
func (ob *object) history() *object {
	h := newObject(ob.name+"History", ob.label+" History", "017")
	h.readOnly, h.historyOf = true, ob.name
	h.sysField("Id", ob.label+" History ID", typeID, sysID)
	h.sysField("IsDeleted", "Deleted", Checkbox, sysDeleted)
	h.reference(ob.name+"Id", ob.label+" ID", ob.name, ob.name, sysNone, true)
	h.reference("CreatedById", "Created By ID", "CreatedBy", "User", sysCreatedBy, true)
	h.sysField("CreatedDate", "Created Date", DateTime, sysCreatedDate)
	h.define(`
		Field|Changed Field|picklist|255|s
		DataType|Datatype|picklist|40|s
		OldValue|Old Value|anyType|0|s
		NewValue|New Value|anyType|0|s`)
	return h
}
