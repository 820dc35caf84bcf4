"""What the backends over HTTP share, in the order in which an answer passes it.

address.py      where a server is, and what must never be shown of it
environment.py  what lies between: proxies and certificates
client.py       the HTTP client: how it is made
transport.py    its connections: kept, used again, renewed
connection.py   one of them: HTTP/1.1
exchange.py     how a request goes out on it
translation.py  what it raises, as the library's errors
response.py     a response's bytes as they arrive: a success, and a stream
lines.py        from bytes to lines and events
json_values.py  JSON that came from outside
surrogates.py   halves of characters
failures.py     what can go wrong, as the library's errors
refusals.py     what a refused request is about, by the server's words
delays.py       whether and when a refused request may be made again
backend.py      all of it as one backend; a protocol is a subclass
"""
