"""The patterns of secrets and personal data.

regions.py     a kind, and how it is found: the plain form of a text, and the regions that are searched
secrets.py     keys, tokens and passwords
addresses.py   e-mail and IP addresses
numbers.py     groups of digits: card numbers, IBANs, national numbers, and harmless ones
phones.py      phone numbers
"""
