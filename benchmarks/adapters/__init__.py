"""The same work, done with each library; an adapter is a module with these functions.

stream_chunks(deltas, requirements, chunking, runs)   text that is checked while it streams
read_thunk(deltas)            one streamed generation, read to the end
slow_lanes()                  three requirements, slow in turn
overlap()                     a source, a requirement and a consumer that each take their time
fail_while_sibling_sleeps()   one requirement fails while another one is in a call of 2 s
backend_error_after(deltas)   sources that break after so many: the part that reaches the user
first_delta_latency()         from the server's socket to the reader's hands
many_thunks(thunks, deltas)   generations at the same time
three_instructs()             three instructions with the default strategy
import_cost()                 what the program of the first row imports
first_answer()                a fresh process up to its first answer over HTTP
wire(protocol, streams, deltas)   checked streams over HTTP at the same time
sync_call(calls)              a blocking call

Each returns what it measured as a dict of numbers; all times are in seconds. A function that is not
there is work that the library cannot do; the adapter's ``CANNOT`` says why. ``LOOP`` says which event
loop to use.
``_work.py`` has what is the same for all of them.
"""
