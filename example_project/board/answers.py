"""A stand-in for a model: two hundred words at twenty a second, about whatever it is asked."""

import time

WORDS = 200
WORDS_PER_SECOND = 20

SENTENCES = """
Otters sleep on their backs. They hold hands while they do, so that nobody drifts away. A heron stands in the reeds
and waits; it is better at waiting than anyone. When the tide turns, the water brings whatever it found on its way,
and takes along whatever was left in the open. Nobody writes that down.
""".split()


def words(question):
    """As a model's SDK gives them: one after the other, and each takes its time."""
    asked = f"You asked: {question}".split()
    yield from asked
    for number in range(WORDS - len(asked)):
        yield SENTENCES[number % len(SENTENCES)]


def write_answer(job, question):
    """What runs outside of the request: it goes on when the page is closed, and stops when somebody says so."""
    for number, word in enumerate(words(question), 1):
        if job.is_cancelled:
            return
        job.write(f"{word} ")
        job.progress(min(number / WORDS, 1), f"{number} words")
        time.sleep(1 / WORDS_PER_SECOND)
