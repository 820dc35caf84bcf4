"""What the backends over HTTP share, in the order in which an answer passes it.

address.py      where a server is, and what must never be shown of it
environment.py  what lies between: proxies and certificates
client.py       the HTTP client: how it is made
transport.py    its connections: kept, used again, renewed
connection.py   one of them: HTTP/1.1
fast.py         the same by aiohttp, under asyncio where it is installed
exchange.py     how a request goes out on it
translation.py  what it raises, as the library's errors
response.py     a response's bytes as they arrive, and a close that no peer can hold up
codings.py      bodies that are compressed all the same
lines.py        from bytes to lines
events.py       from lines to the data of events
json_values.py  JSON that came from outside
surrogates.py   halves of characters
ending.py       when an answer is whole
failures.py     what can go wrong, as the library's errors
refusals.py     what a refused request is about, by the server's words
delays.py       whether and when a refused request may be made again
dialect.py      what a server knows of OpenAI's protocol
backend.py      all of it as one backend; a protocol is a subclass
"""
