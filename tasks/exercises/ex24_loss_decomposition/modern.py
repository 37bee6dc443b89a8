"""A passage of present-day prose for 21.24, written for this project: no model has read it before.

Its sentences begin in many ways, where those of the biblical text begin with "And".
"""

MODERN = """\
The bus was eleven minutes late, which gave Priya time to read the notice twice. Somebody had taped it to the \
shelter with parcel tape, at a height that suited nobody. According to the council, the library on Mill Street \
would close at the end of the month, and readers were thanked for their patience. She looked around for someone \
to be angry with. A man in a cycling helmet was eating soup from a flask.

When the bus came she sat upstairs at the front, as she had done since she was six, and made a list on the back \
of an envelope. Letters were useless, everybody said so, but a letter had once saved the swimming pool. Who \
still had the addresses? Her brother would know. He had organised the whole campaign from his kitchen, with two \
phones and a map, and afterwards he had thrown nothing away. Nothing was ever thrown away in that kitchen.

Daniel answered on the ninth ring. Behind him a radio was explaining interest rates to a dog. "You want the \
boxes," he said, before she had finished. "They are in the shed, under the kayak. Bring gloves."

It rained on Saturday, of course. Water came through the roof of the shed in three places, and each leak had its \
own bucket and its own note. They carried eleven boxes into the house and opened them on the floor. Most of the \
paper had turned soft at the corners. Inside the fourth box were the original petitions, nine thousand \
signatures in biro, some of them by people who had died since. Priya found her own name twice. At fourteen she \
had signed once in capitals, for the council, and once in her best handwriting, in case anyone important was \
looking.

"Here is what I learned," said Daniel, who liked to be asked. "Councils do not read. Councillors do, if you find \
out what frightens them. Last time it was the hotel." Nobody at the town hall had cared about the pool, but the \
hotel had promised forty rooms, and tourists with wet hair were the only customers it could think of. Therefore \
the hotel wrote to the mayor, and the mayor discovered a lifelong love of swimming.

So who was afraid of losing a library? They went through the town, street by street. Parents, certainly, \
although parents were always afraid of something. Pensioners used the newspapers and the heating. Teenagers came \
for the sockets. Then there was the small firm across the road that repaired hearing aids; half of its customers \
waited in the reading room, where the chairs were good and it was quiet enough to test the things. "Hearing \
aids," Daniel said slowly. Somewhere in his head a map was being unfolded.

By Tuesday they had an appointment. The owner of the firm turned out to be a cheerful woman called Marguerite, \
who kept her screwdrivers in alphabetical order and could not see why a building with a working boiler should be \
shut. She had never written to a politician. Would it help if she invited one to have his ears examined? \
Councillor Boyd, according to everyone, had not heard a word of any meeting since 2019.

What happened next is a matter of record, though the record is incomplete. On the Thursday, Mr Boyd spent forty \
minutes in the reading room with a small machine behind each ear. He heard pages turn. He heard a child ask, \
three shelves away, whether whales could be lonely, and he heard the librarian consider the question properly \
before she answered. Afterwards he sat in his car with the window down. Rain was falling on the roof, and he did \
not start the engine until it had stopped.

The vote was close. Seven hands went up for the closure, out of habit, and eight against it. Boyd's was the \
last. In the public gallery Priya wrote the numbers on her envelope, under the list, and drew a box around them. \
Daniel had already left to put the petitions back under the kayak. "You never know," he had said, and he had \
taken her biro with him.

Outside, the same man was waiting at the stop with the same flask. Tomato, she decided. Neither of them \
mentioned the notice, which had come loose at one corner and was flapping like something that wanted to be let \
in. The bus was early for once, so early that they both had to run.
"""
