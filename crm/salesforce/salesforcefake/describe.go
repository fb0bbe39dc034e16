package salesforcefake

import "sort"

// brief is what /sobjects and /sobjects/X say of an object.
func (c *call) brief(t *table) map[string]any {
	base := c.prefix() + "/sobjects/" + t.name
	rw := !t.readOnly && c.o.objectAccess(c.user, t) == ReadWrite
	return map[string]any{
		"name": t.name, "label": t.label, "labelPlural": t.plural, "keyPrefix": t.prefix,
		"custom": false, "associateEntityType": historyOr(t, "History"), "associateParentEntity": historyOr(t, t.historyOf), "customSetting": false, "deprecatedAndHidden": false, "activateable": false, "hasSubtypes": false,
		"isSubtype": false, "isInterface": false, "feedEnabled": rw, "triggerable": rw, "layoutable": true, "searchable": true,
		"createable": rw, "updateable": rw, "deletable": rw, "undeletable": rw, "mergeable": rw, "queryable": true,
		"replicateable": true, "retrieveable": true, "mruEnabled": rw,
		"urls": map[string]string{"sobject": base, "describe": base + "/describe", "rowTemplate": base + "/{ID}"},
	}
}

// historyOr is a value that only histories have, null for others.
func historyOr(t *table, v string) any {
	if t.historyOf == "" {
		return nil
	}
	return v
}

func (c *call) describeGlobal() *response {
	var names []string
	for name := range c.o.tables {
		names = append(names, name)
	}
	sort.Strings(names)
	list := []any{}
	for _, name := range names {
		if t := c.o.tables[name]; c.o.objectAccess(c.user, t) != Hidden {
			list = append(list, c.brief(t))
		}
	}
	return jsonResponse("describe_global", 200, map[string]any{"encoding": "UTF-8", "maxBatchSize": maxCollection, "sobjects": list})
}

type describedValue struct {
	Active       bool    `json:"active"`
	DefaultValue bool    `json:"defaultValue"`
	Label        string  `json:"label"`
	ValidFor     *string `json:"validFor"`
	Value        string  `json:"value"`
}

type describedField struct {
	Aggregatable       bool             `json:"aggregatable"`
	AutoNumber         bool             `json:"autoNumber"`
	ByteLength         int              `json:"byteLength"`
	Calculated         bool             `json:"calculated"`
	CalculatedFormula  *string          `json:"calculatedFormula"`
	CaseSensitive      bool             `json:"caseSensitive"`
	CompoundFieldName  *string          `json:"compoundFieldName"`
	Createable         bool             `json:"createable"`
	Custom             bool             `json:"custom"`
	DefaultValue       any              `json:"defaultValue"`
	DefaultedOnCreate  bool             `json:"defaultedOnCreate"`
	DependentPicklist  bool             `json:"dependentPicklist"`
	Deprecated         bool             `json:"deprecatedAndHidden"`
	Digits             int              `json:"digits"`
	Encrypted          bool             `json:"encrypted"`
	ExternalID         bool             `json:"externalId"`
	Filterable         bool             `json:"filterable"`
	Groupable          bool             `json:"groupable"`
	IDLookup           bool             `json:"idLookup"`
	InlineHelpText     *string          `json:"inlineHelpText"`
	Label              string           `json:"label"`
	Length             int              `json:"length"`
	Name               string           `json:"name"`
	NameField          bool             `json:"nameField"`
	Nillable           bool             `json:"nillable"`
	Permissionable     bool             `json:"permissionable"`
	PicklistValues     []describedValue `json:"picklistValues"`
	Polymorphic        bool             `json:"polymorphicForeignKey"`
	Precision          int              `json:"precision"`
	ReferenceTo        []string         `json:"referenceTo"`
	RelationshipName   *string          `json:"relationshipName"`
	RestrictedPicklist bool             `json:"restrictedPicklist"`
	Scale              int              `json:"scale"`
	SOAPType           string           `json:"soapType"`
	Sortable           bool             `json:"sortable"`
	Type               Type             `json:"type"`
	Unique             bool             `json:"unique"`
	Updateable         bool             `json:"updateable"`
}

// describe shows the object as the user sees it: hidden fields are absent, read-only ones say so.
func (c *call) describe(t *table) *response {
	fields := []describedField{}
	for _, f := range t.fields {
		access := c.o.access(c.user, t, f)
		if access == Hidden {
			continue
		}
		write := f.writable() && access == ReadWrite && !t.readOnly && c.o.objectAccess(c.user, t) == ReadWrite
		d := describedField{
			Aggregatable: f.Type != Checkbox && f.filterable(), Calculated: f.Formula != nil, Createable: write, Updateable: write,
			Custom: f.custom(), DefaultValue: f.Default, ExternalID: f.ExternalID, Filterable: f.filterable(), Sortable: f.filterable(),
			Groupable: f.filterable() && f.Type != DateTime && f.Formula == nil, IDLookup: f.sys == sysID || f.ExternalID || f.Name == "Email",
			Label: f.Label, Length: f.Length, Name: f.Name, NameField: f.Name == "Name", Type: f.Type, Unique: f.Unique,
			Nillable:       !f.Required && f.Type != Checkbox && f.Type != typeID && !(f.system && f.Type == DateTime) && f.sys != sysOwner,
			Permissionable: f.writable() && !f.Required, PicklistValues: []describedValue{}, ReferenceTo: []string{},
			RestrictedPicklist: f.Restricted, SOAPType: "xsd:" + soapName(f.Type),
		}
		if f.textual() {
			d.ByteLength = f.Length * 3
		}
		switch f.Type {
		case Checkbox:
			d.DefaultValue, d.DefaultedOnCreate = f.Default == true, true
		case typeID, Reference:
			d.SOAPType, d.ByteLength = "tns:ID", f.Length
		case Number:
			d.Precision, d.Scale = 18, 2
		}
		if f.system || f.Default != nil || f.sys == sysOwner {
			d.DefaultedOnCreate = f.Formula == nil && f.sys != sysName
		}
		if f.refTo != "" {
			d.ReferenceTo, d.RelationshipName = []string{f.refTo}, &f.relation
		}
		if f.Formula != nil {
			formula := "(formula)"
			d.CalculatedFormula = &formula
		}
		for _, v := range f.Values {
			d.PicklistValues = append(d.PicklistValues, describedValue{Active: true, Label: v, Value: v, DefaultValue: f.Default == any(v)})
		}
		fields = append(fields, d)
	}
	out := c.brief(t)
	out["fields"] = fields
	out["childRelationships"], out["recordTypeInfos"], out["supportedScopes"] = []any{}, []any{}, []any{}
	return jsonResponse("describe", 200, out)
}
