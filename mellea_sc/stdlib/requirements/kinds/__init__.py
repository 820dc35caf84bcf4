"""The patterns of secrets and personal data.

kind.py        a kind of secret or personal data, and how it is found
plain.py       a text without invisible characters, and with plain digits, spaces and hyphens
regions.py     a scanner that searches the regions of a text where something may be
secrets.py     keys, tokens and passwords; pem.py: private keys, in any quotation
addresses.py   e-mail and IP addresses
accounts.py    card numbers and IBANs
nationals.py   national identification numbers
phones.py      phone numbers
digits.py      groups of digits in a text, and harmless ones
"""
