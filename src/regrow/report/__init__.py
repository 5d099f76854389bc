"""report: one self-contained HTML page for each finished run, read from the run's files only.

Lives here: the page (``page.py``: :func:`~regrow.report.page.write_page`), its sections, the
drawings (``drawing.py``, ``axes.py``, ``plots.py``, ``tree.py``), tolerant reading of run folders
(``record.py``), numbers as text (``format.py``), and ``templates/`` (page, table, style sheet).
May touch: ``core`` and jinja2. No torch: a page is made from files, never from a model.

A page needs nothing but itself: no script, no font, no image, no request. It is the same bytes
whenever it is made from the same files, and a figure on it carries its value and the file that it
was read from (the ``data`` elements).

To add a section: one function ``RunFolder -> Section | None`` (for a family ``Family -> ...``) that
returns None when what it needs is missing, and one line in the lists of ``page.py``. Read through
``record.number``, ``mapping``, ``items``, ``text``: a key may be absent or hold anything, and a
page must come out. Make figures with ``section.figure`` and tables with ``section.Table``; give
``section.drawings`` a function of the width, so that a phone has a drawing of its own. To add a way
of drawing: one function that returns a ``Drawing``; its ``labels`` are what the tests check for
overlaps.
"""
