package salesforcefake

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
)

// Person is one of the known records of [Org.People].
type Person struct {
	Object string // Contact or Lead
	ID     string
	Name   string
	Field  string // the phone field
	Raw    string // the number as the record has it
	E164   string // the number
}

// People makes sure that a handful of known records exists, for demos and examples, and returns them. Ada Example's
// number +14155550142 is on two contacts and a lead, each time in another spelling, and on nobody else's record.
func (o *Org) People() []Person {
	o.mu.RLock()
	people := o.people
	o.mu.RUnlock()
	if people != nil {
		return people
	}
	add := func(object, first, last, field, raw, e164 string) {
		fields := map[string]any{"FirstName": first, "LastName": last, field: raw,
			"Email": strings.ToLower(first) + "@example.com"}
		if object == "Lead" {
			fields["Company"] = "Example Corp"
		}
		people = append(people, Person{object, o.Insert(object, fields), first + " " + last, field, raw, e164})
	}
	add("Contact", "Ada", "Example", "MobilePhone", "(415) 555-0142", "+14155550142")
	add("Contact", "Adam", "Example", "Phone", "415.555.0142 x22", "+14155550142")
	add("Lead", "Ada", "Example", "MobilePhone", "1-415-555-0142", "+14155550142")
	add("Contact", "Ben", "Sample", "MobilePhone", "+1 (212) 555-0117", "+12125550117")
	add("Lead", "Cleo", "Specimen", "Phone", "2065550188", "+12065550188")
	add("Contact", "Dev", "Placeholder", "HomePhone", "+44 7700 900123", "+447700900123")
	o.mu.Lock()
	defer o.mu.Unlock()
	o.people = people
	return people
}

// Seed adds n people, about seven Contacts to three Leads, the same ones for the same n and seed in an org of the same
// history. Names are made up and numbers are ones that no subscriber has: 555-01xx in real area codes (other 555 numbers
// once those run out) and the ranges that other countries keep for fiction. The phone fields are as untidy as those of a
// real org: every usual spelling, extensions, several spellings of one number, families and company lines, people who
// are Contact and Lead, empty fields, garbage and foreign numbers. About one person in fifty has opted out.
func (o *Org) Seed(n int, seed uint64) {
	o.settle()
	o.mu.Lock()
	defer o.mu.Unlock()
	s := newSeeder(o, seed)
	for range n {
		s.person()
	}
	for t := range s.slots {
		slices.SortFunc(t.index, func(a, b stampEntry) int {
			return cmp.Or(cmp.Compare(a.stamp, b.stamp), cmp.Compare(a.num, b.num))
		})
	}
}

type seeder struct {
	o              *Org
	r              *rand.Rand
	contact, lead  *table
	account        *table
	now            int64
	next           int // index of the next unused number
	arena          []byte
	rows           []row
	last           seededPerson
	slots          map[*table]seedSlots
	company        string // numbers of the current company line
	companyPhone   phoneNumber
	companyAccount string
	companyLeft    int
}

type seedSlots struct {
	first, last, email, title, city, phone, mobile, home, other, accountID, companyName, status, source uint8
	optOut, optDate, optSource, name                                                                    uint8
}

type seededPerson struct {
	first, last string
	phone       phoneNumber
	object      *table
}

type phoneNumber struct{ area, line int }

// areaCodes are North American area codes in use.
var areaCodes = strings.Fields(`201 202 203 205 206 207 208 209 210 212 213 214 215 216 217 218 219 224 225 228 229 231 234 239 240
	248 251 252 253 254 256 260 262 267 269 270 276 281 301 302 303 304 305 307 308 309 310 312 313 314 315 316 317 318 319 320 321 323
	325 330 334 336 337 339 346 347 351 352 360 361 385 386 401 402 404 405 406 407 408 409 410 412 413 414 415 417 419 423 424 425 430
	432 434 435 440 443 458 463 469 470 478 479 480 484 501 502 503 504 505 507 508 509 510 512 513 515 516 517 518 520 530 531 534 539
	540 541 551 559 561 562 563 567 570 571 573 574 575 580 585 586 601 602 603 605 606 607 608 609 610 612 614 615 616 617 618 619 620
	623 626 628 629 630 631 636 641 646 650 651 657 660 661 662 667 669 678 681 682 701 702 703 704 706 707 708 712 713 714 715 716 717
	718 719 720 724 725 727 731 732 734 737 740 747 754 757 760 762 763 765 769 770 772 773 774 775 779 781 785 786 801 802 803 804 805
	806 808 810 812 813 814 815 816 817 818 828 830 831 832 843 845 847 848 850 854 856 857 858 859 860 862 863 864 865 870 872 878 901
	903 904 906 907 908 909 910 912 913 914 915 916 917 918 919 920 925 928 929 931 936 937 938 940 941 947 949 951 952 954 956 959 970
	971 972 973 978 979 980 984 985 989`)

var (
	firstNames = strings.Fields(`Ada Amara Andre Anika Astrid Beatriz Boris Carmen Cedric Chidi Chloe Dalia Dmitri Elena Elif Emeka
		Esther Farid Fatima Felix Fiona Gareth Greta Hana Hassan Hiro Ida Ingrid Isaac Ivan Jamal Jana Jorge Kavya Keiko Kwame Lars Leila Linh
		Luca Mabel Marta Mateo Mei Milos Mina Nadia Naoko Nils Noor Olga Omar Paolo Petra Priya Quentin Rafael Ravi Rosa Ruth Samir Sanne Sergio
		Sofia Tariq Tessa Tomas Uma Vera Victor Wanda Wei Xenia Yara Yusuf Zoe José Zoë Søren`)
	lastNames = strings.Fields(`Abara Adler Almeida Andersson Aoki Bakker Banerjee Barros Becker Bianchi Boateng Brandt Castillo Chandra
		Chen Costa Dahl Desai Diallo Dubois Eze Farouk Ferrari Fischer Fontaine Garza Gomes Greco Gupta Haas Haddad Hansen Herrera Ibarra Ito
		Jansen Jensen Kaplan Kaur Keller Kim Kowalski Kumar Larsen Laurent Lindgren Lopes Madsen Malik Marino Mbeki Mehta Meyer Moreau Nakamura
		Ndiaye Nguyen Novak Nunes Okafor Olsen Osei Park Patel Petrov Popescu Quist Rahman Reyes Ricci Rossi Sato Schmidt Silva Singh Sorensen
		Suzuki Tanaka Torres Usman Vargas Vogel Weber Wong Yilmaz Zhang Zimmer O'Brien Müller Nuñez`)
	titles  = []string{"", "", "Office Manager", "Owner", "Buyer", "Teacher", "Engineer", "Director of Operations", "Nurse", "Technician"}
	cities  = []string{"", "Springfield", "Riverside", "Fairview", "Franklin", "Greenville", "Bristol", "Clinton", "Salem", "Madison"}
	firms   = strings.Fields("Acme Borealis Cobalt Delta Ember Fathom Granite Harbor Indigo Juniper Kestrel Lumen Meridian Nimbus Orchard Pioneer")
	trades  = []string{"Plumbing", "Dental", "Logistics", "Bakery", "Fitness", "Realty", "Motors", "Landscaping", "Clinic", "Catering"}
	garbage = []string{"n/a", "N/A", "none", "-", "unknown", "call after 5", "see notes", "555", "123", "000-000-0000", "do not call",
		"ask Wanda", "same as above", "x22", "(   )   -", "1", "+", "99999999999999999999"}
	sources = []string{"Web", "Phone Inquiry", "Partner Referral", "Purchased List", "Other"}
)

func newSeeder(o *Org, seed uint64) *seeder {
	s := &seeder{o: o, r: rand.New(rand.NewPCG(seed, 0x70656f706c65)), contact: o.table("Contact"), lead: o.table("Lead"),
		account: o.table("Account"), now: o.stampNow(), slots: map[*table]seedSlots{}}
	for _, t := range []*table{s.contact, s.lead, s.account} {
		slot := func(name string) uint8 {
			if f := t.field(name); f != nil {
				return f.slot
			}
			return 255 // not there; never written
		}
		city := "MailingCity"
		if t == s.lead {
			city = "City"
		}
		s.slots[t] = seedSlots{first: slot("FirstName"), last: slot("LastName"), email: slot("Email"), title: slot("Title"), city: slot(city),
			phone: slot("Phone"), mobile: slot("MobilePhone"), home: slot("HomePhone"), other: slot("OtherPhone"),
			accountID: slot("AccountId"), companyName: slot("Company"), status: slot("Status"), source: slot("LeadSource"),
			optOut: slot("SMS_Opt_Out__c"), optDate: slot("SMS_Opt_Out_Date__c"), optSource: slot("SMS_Opt_Out_Source__c"), name: slot("Name")}
	}
	return s
}

func pick[T any](r *rand.Rand, list []T) T { return list[r.IntN(len(list))] }

// number returns a number that nobody has been given yet: first all of 555-0100 to 0199 over the area codes, then the
// rest of 555 but for directory assistance.
func (s *seeder) number() phoneNumber {
	i := s.next
	s.next++
	area, line := i%len(areaCodes), i/len(areaCodes)
	if line += 100; line >= 1212 {
		line++
	}
	return phoneNumber{area, line % 10000}
}

// spell writes a US number in one of the ways that people, forms and imports write it.
func (s *seeder) spell(p phoneNumber) string {
	a := areaCodes[p.area]
	l := fmt.Sprintf("%04d", p.line)
	switch s.r.IntN(20) {
	case 0, 1, 2, 3:
		return "(" + a + ") 555-" + l // what the browser makes of ten digits
	case 4, 5, 6:
		return "+1" + a + "555" + l
	case 7, 8:
		return a + "-555-" + l
	case 9, 10:
		return a + "555" + l
	case 11:
		return "1" + a + "555" + l
	case 12:
		return a + ".555." + l
	case 13:
		return "+1 (" + a + ") 555-" + l
	case 14:
		return "1-" + a + "-555-" + l
	case 15:
		return a + " 555 " + l
	case 16:
		return "(" + a + ")555-" + l + fmt.Sprintf(" ext. %d", 1+s.r.IntN(400))
	case 17:
		return a + "-555-" + l + fmt.Sprintf(" x%d", 1+s.r.IntN(400))
	case 18:
		return "+1-" + a + "-555-" + l
	}
	return "001 " + a + " 555 " + l
}

// foreign writes a number from a range that its country keeps for fiction.
func (s *seeder) foreign() string {
	n := s.r.IntN(1000)
	switch s.r.IntN(6) {
	case 0:
		return fmt.Sprintf("+44 7700 900%03d", n)
	case 1:
		return fmt.Sprintf("07700 900%03d", n)
	case 2:
		return fmt.Sprintf("+44 20 7946 0%03d", n)
	case 3:
		return fmt.Sprintf("+33 6 39 98 %02d %02d", n/100, n%100)
	case 4:
		return fmt.Sprintf("+49 30 23125 %03d", n)
	}
	return fmt.Sprintf("+61 491 570 %03d", 6+n%100)
}

func (s *seeder) put(slot uint8, v string) {
	if v != "" && slot != 255 {
		s.arena = appendField(s.arena, slot, v)
	}
}

// add makes a row from what was put since from. Rows and their data come from slabs, so a million people are a few
// thousand allocations.
func (s *seeder) add(t *table, from int) uint32 {
	if len(s.rows) == 0 {
		s.rows = make([]row, 1024)
	}
	r := &s.rows[0]
	s.rows = s.rows[1:]
	age := int64(1+s.r.IntN(700*24*3600)) * 1000
	changed := age / int64(1+s.r.IntN(5))
	*r = row{num: uint32(len(t.rows) + 1), created: s.now - age/1000*1000, modified: s.now - changed/1000*1000, owner: adminUser,
		createdBy: adminUser, modifiedBy: adminUser, data: string(s.arena[from:])}
	r.stamp = r.modified
	t.rows = append(t.rows, r)
	t.index = append(t.index, stampEntry{r.stamp, r.num})
	s.arena = s.arena[:from]
	return r.num
}

func (s *seeder) person() {
	t := s.contact
	if s.r.IntN(10) < 3 {
		t = s.lead
	}
	p := seededPerson{first: pick(s.r, firstNames), last: pick(s.r, lastNames), object: t}
	dice := s.r.IntN(100)
	switch {
	case dice < 6 && s.last.first != "": // the person before, once more, on the other object
		p = s.last
		p.object = s.contact
		if s.last.object == s.contact {
			p.object = s.lead
		}
		t = p.object
	case dice < 12 && s.last.first != "": // their family: same name, same number
		p.last, p.phone = s.last.last, s.last.phone
	default:
		p.phone = s.number()
	}
	if s.companyLeft == 0 {
		s.company = pick(s.r, firms) + " " + pick(s.r, trades)
		s.companyPhone, s.companyLeft = s.number(), 2+s.r.IntN(12)
		sl, from := s.slots[s.account], len(s.arena)
		s.put(sl.name, s.company)
		s.put(sl.phone, s.spell(s.companyPhone))
		s.companyAccount = s.account.id(s.add(s.account, from))
	}
	s.companyLeft--
	sl, from := s.slots[t], len(s.arena)
	s.put(sl.first, p.first)
	s.put(sl.last, p.last)
	s.put(sl.email, fmt.Sprintf("%s.%s%d@example.com", asciiLower(p.first), asciiLower(p.last), s.next))
	s.put(sl.title, pick(s.r, titles))
	s.put(sl.city, pick(s.r, cities))
	if t == s.lead {
		s.put(sl.companyName, s.company)
		s.put(sl.status, "Open - Not Contacted")
		s.put(sl.source, pick(s.r, sources))
	} else {
		s.put(sl.accountID, s.companyAccount)
	}
	mobile := ""
	switch dice := s.r.IntN(100); {
	case dice < 80:
		mobile = s.spell(p.phone)
	case dice < 86:
		mobile = s.foreign()
	case dice < 89:
		mobile = pick(s.r, garbage)
	}
	s.put(sl.mobile, mobile)
	switch dice := s.r.IntN(100); {
	case dice < 25:
		s.put(sl.phone, s.spell(s.companyPhone)) // the firm's line, shared by its people
	case dice < 45:
		s.put(sl.phone, s.spell(p.phone)) // the mobile again, spelt otherwise
	case dice < 48:
		s.put(sl.phone, pick(s.r, garbage))
	}
	if t == s.contact && s.r.IntN(10) == 0 {
		s.put(sl.home, s.spell(p.phone))
	}
	if s.r.IntN(50) == 0 {
		s.put(sl.optOut, "1")
		at := s.now - int64(s.r.IntN(300*24*3600))*1000
		s.put(sl.optDate, string(binary.BigEndian.AppendUint64(nil, uint64(at/1000*1000))))
		s.put(sl.optSource, "import")
	}
	s.add(t, from)
	s.last = p
}

func asciiLower(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r >= 'A' && r <= 'Z':
			return r + 'a' - 'A'
		case r >= 'a' && r <= 'z':
			return r
		}
		return -1
	}, s)
}
