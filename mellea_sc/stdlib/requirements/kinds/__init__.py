"""What secrets and personal data look like.

kind.py        a kind of thing: where it stands in a text, and how far one goes that is cut off
plain.py       a text as its characters are meant: no invisible ones, plain digits, spaces and hyphens
regions.py     cuts a running text where something may be, and judges it there
secrets.py     keys, tokens and passwords; pem.py: private keys, however they are quoted
addresses.py   e-mail and IP addresses
accounts.py    card numbers and IBANs
nationals.py   numbers that a state gives to a person
phones.py      phone numbers
digits.py      what these share: groups of digits in a text, and those that are harmless
personal.py    all kinds of personal data, each loaded when it is asked for
"""
