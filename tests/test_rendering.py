"""Templates for everybody, beside what two viewers see: what differs between those is never sent.

The property: a template that shows a member of the staff something else than a stranger is refused; whatever is drawn
is what both of them see.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from copy import copy
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import AnonymousUser, User
from django.db import OperationalError
from django.template.loader import get_template
from django.test import RequestFactory
from django.test.signals import template_rendered
from django.test.utils import ContextList
from django.utils.functional import SimpleLazyObject

from django_sse_live.rendering import ViewerDependentError, render_for_everyone

pytestmark = pytest.mark.django_db

Render = Callable[[str], str]


def give_cart(request: Any) -> dict[str, Any]:
    """Only to those who have one."""
    if request.user.is_staff:
        return {"cart": [1]}
    return {}


def give_extras(request: Any) -> dict[str, Any]:
    extras = {"site_name": "ACME"}
    if request.user.is_staff:
        extras["extra"] = "STAFF"
    return extras


def give_through_another(request: Any) -> dict[str, Any]:
    return _made_for(request)


def _made_for(request: Any) -> dict[str, Any]:
    return {"through_another": "STAFF"} if request.user.is_staff else {}


is_database_away = False


def give_motto(request: Any) -> dict[str, Any]:
    if is_database_away:
        raise OperationalError("the database is away")
    return {"motto": "Onwards"}


def give_tenant(request: Any) -> dict[str, Any]:
    return {"tenant": request.tenant_of_middleware}


class GiveObject:
    def __call__(self, request: Any) -> dict[str, Any]:
        return {"held": _Held(request), "ask": lambda: request.user.is_staff}


class _Held:
    def __init__(self, request: Any) -> None:
        self.request = request

    def __str__(self) -> str:
        return "held"

    @property
    def is_staff(self) -> bool:
        return bool(self.request.user.is_staff)


give_object = GiveObject()


def give_account(request: Any) -> dict[str, Any]:
    return {"account": request.user, "basket": [1]}


def give_lazily(request: Any) -> dict[str, Any]:
    return {"lazy_account": SimpleLazyObject(lambda: request.user)}


def give_name(request: Any) -> dict[str, Any]:
    return {"name": "ACME"}


KNOWN = ["give_cart", "give_extras", "give_object", "give_account", "give_lazily", "give_name"]
PARTS = {
    "plain.html": "{% if user.is_staff and 1 %}STAFF{% endif %}{{ name }}",
    "by_attribute.html": "{% by_attribute %}",
    "base.html": "<{% block a %}{% if user.is_staff or 0 %}STAFF{% endif %}{% endblock %}>{% block b %}b{% endblock %}",
}


def configure(settings: Any, processors: list[str]) -> dict[str, str]:
    """Templates in memory, of which each test adds its own; and these context processors beside Django's."""
    files = dict(PARTS)
    (backend,) = settings.TEMPLATES
    options = {
        **backend["OPTIONS"],
        "loaders": [("django.template.loaders.locmem.Loader", files)],
        "builtins": ["tests.testapp.viewer_tags", "django.templatetags.i18n"],
        "context_processors": [
            "django.template.context_processors.debug",
            *backend["OPTIONS"]["context_processors"],
            *(f"tests.test_rendering.{name}" for name in processors),
        ],
    }
    settings.TEMPLATES = [{**backend, "APP_DIRS": False, "OPTIONS": options}]
    return files


def seen_by(user: Any, name: str, values: dict[str, Any]) -> str:
    """What a page of this viewer's shows; or the kind of what is raised."""
    request: Any = RequestFactory().get("/")
    request.user, request.session, request._messages = user, {}, []
    request.tenant_of_middleware = "STAFF" if user.is_staff else ""
    try:
        return str(get_template(name).render(values, request))
    except Exception as error:
        return type(error).__name__


@pytest.fixture
def check(settings: Any) -> Callable[..., str | None]:
    files = configure(settings, KNOWN)
    staff = User(pk=1, username="s", is_staff=True, is_superuser=True)

    def check(source: str, values: dict[str, Any] | None = None) -> str | None:
        """What goes to everybody; None where nothing does."""
        name = f"{len(files)}.html"
        files[name] = source
        values = {"word": "word", "items": ["a", "b"], "nothing": [], **(values or {})}
        views = {seen_by(user, name, dict(values)) for user in (staff, AnonymousUser())}
        try:
            sent = render_for_everyone(name, values)
        except ViewerDependentError:
            return None
        except Exception as error:
            sent = type(error).__name__
        assert views == {sent}, source
        return sent

    return check


ASKING = [
    "{{ user }}", "{{ user.username }}", "{{ user|default:'' }}", "{{ user.is_staff|yesno:'STAFF,' }}",
    "{% if user %}STAFF{% endif %}", "{% if user.is_staff %}STAFF{% endif %}",
    "{% if not user.is_staff %}{% else %}STAFF{% endif %}",
    "{% if user.is_anonymous and word %}{% else %}STAFF{% endif %}",
    "{% if word and not user.is_staff %}{% else %}STAFF{% endif %}",
    "{% if not user.is_staff or word %}{% else %}STAFF{% endif %}",
    "{% if user == word %}{% else %}STAFF{% endif %}", "{% if word == user %}{% else %}STAFF{% endif %}",
    "{% if word != user %}STAFF{% endif %}", "{% if user is None %}{% else %}STAFF{% endif %}",
    "{% if user.pk in items %}{% else %}STAFF{% endif %}", "{% if user not in items %}STAFF{% endif %}",
    "{% if user in nothing %}{% else %}STAFF{% endif %}",  # nothing to compare with, and yet a question
    "{% if user|length %}{% else %}STAFF{% endif %}",
    "{% firstof user.is_staff 'STAFF' %}", "{% for x in user.groups %}{% empty %}STAFF{% endfor %}",
    "{% with u=user %}{% if u.is_staff or 1 %}STAFF{% endif %}{% endwith %}",
    "{% with staff=user.is_staff %}STAFF{% endwith %}", "{% ifchanged user.pk %}STAFF{% endifchanged %}",
    "{% if perms.testapp.add_article %}STAFF{% endif %}", "{% if 'testapp' in perms %}{% else %}STAFF{% endif %}",
    "{{ request.path }}", "{% if request %}STAFF{% endif %}",
    "{% if request.user.is_staff and 1 %}{% else %}STAFF{% endif %}",
    "{% if messages %}{% else %}STAFF{% endif %}", "{% for message in messages %}{{ message }}{% endfor %}",
    "{% if account.is_staff and 1 %}{% else %}STAFF{% endif %}", "{% if not account %}STAFF{% endif %}",
    "{% if basket and 1 %}{% else %}STAFF{% endif %}",
    "{% if lazy_account.is_staff and 1 %}{% else %}STAFF{% endif %}",
    "{% if not lazy_account.is_staff %}STAFF{% endif %}",
    "{% blocktranslate with name=user.username %}STAFF {{ name }}{% endblocktranslate %}",
    "{% blocktranslate %}STAFF {{ user }}{% endblocktranslate %}",
    "{% url user.pk as there %}STAFF", "{{ word|add:user }}", "{{ 'STAFF'|default:user }}{{ x|default:user }}",
    "{% load sse_live %}{% sse_live 'news' %}", "{% cycle user.pk 'STAFF' as c silent %}{% cycle c %}",
    "{% regroup items by user as groups %}{{ user }}",
]  # fmt: skip


@pytest.mark.parametrize(
    "source",
    [
        *ASKING,
        "{% by_key %}",
        "{% by_get %}",
        "{% by_get 'cart' %}",
        "{% by_get 'extra' %}",
        "{% by_membership 'cart' %}",
        "{% by_membership 'basket' %}",
        "{% by_default 'cart' %}",
        "{% by_attribute %}",
        "{% by_flattening 'user' %}",
        "{% by_flattening 'cart' %}",
        "{% by_layers %}",
        "{% by_another_template %}",
        "{% by_another_request %}",
        "{% included %}",
        "{% included_flat %}",
        "{% included_named %}",
        "{% included_bare %}",
        "{{ user|staff }}",
        "{% filter upper %}{{ user|staff }}{% endfilter %}",
        "{% quietly %}{{ user.is_staff }}{% endquietly %}",
        "{% quietly %}{% if cart %}STAFF{% endif %}{% endquietly %}",
        "{% if cart %}STAFF{% endif %}",
        "{% if not extra %}nobody{% endif %}",
        "{{ held.is_staff }}",
        "{% if held.is_staff and 1 %}STAFF{% endif %}",
        "{% if ask and 1 %}STAFF{% endif %}",
        "{% firstof ask held.is_staff 'nobody' %}",
        "{% with a=held %}{% with b=a %}{% if b.is_staff or 0 %}STAFF{% endif %}{% endwith %}{% endwith %}",
        "{% include 'plain.html' %}",
        "{% include 'plain.html' with name=user %}",
        "{% include 'plain.html' with name=user.username only %}",
        "{% include 'by_attribute.html' only %}",
        "{% extends 'base.html' %}",
        "{% extends 'base.html' %}{% block a %}{{ block.super }}{% endblock %}",
        "{% extends 'base.html' %}{% block a %}a{% endblock %}{% block b %}{% by_get %}{% endblock %}",
        "{% cycle user.username 'b' %}",
        "{% for u in items %}{% ifchanged user.is_staff %}{{ u }}{% else %}STAFF{% endifchanged %}{% endfor %}",
        "{% regroup items by user.is_staff as groups %}{{ groups|length }}{{ user.is_staff }}",
        "{% blocktranslate count n=user.pk %}one{% plural %}more{% endblocktranslate %}",
        "{% widthratio user.pk 1 1 %}",
        "{{ word|default_if_none:user }}{{ missing|default:user.is_staff }}",
        "{{ items|slice:user.pk }}",
        "{% url user.username as there %}{{ there }}{% if user.is_staff %}STAFF{% endif %}",
        "{% autoescape off %}{{ request.user.username }}{% endautoescape %}",
        "{% debug %}{{ perms.auth.add_user }}",
        "{% if perms.auth.add_user == True %}STAFF{% endif %}",
        "{% templatetag openblock %}{{ request.user.is_staff }}",
    ],
)
def test_who_asks_for_the_viewer_in_whatever_way_is_refused(check: Callable[..., str | None], source: str) -> None:
    assert check(f"<p>{source}</p>" if "extends" not in source else source) is None


@pytest.mark.parametrize(
    ("source", "drawn"),
    [
        ("{{ name }}{% if name == 'ACME' %}!{% endif %}", "ACME!"),
        ("{% by_get 'name' %}{% by_membership 'name' %}{% by_flattening 'name' %}", "STAFF" * 3),
        ("{% by_membership 'word' %}{% by_default 'new' %}{{ new }}", "STAFF"),
        ("{% for x in items %}{% for y in items %}{{ forloop.parentloop.counter }}{% endfor %}{% endfor %}", "1122"),
        ("{% for x in items %}{{ forloop.counter }}{% endfor %}{% ifchanged 1 %}{% endifchanged %}", "12"),
        ("{% for user in nothing %}{{ user }}{% empty %}none{% endfor %}", "none"),
        ("{% if 0 and user.is_staff %}STAFF{% endif %}", ""),
        ("{% if nobody_s %}x{% endif %}{{ nobody_s }}", ""),
        ("{% extends 'base.html' %}{% block a %}a{% endblock %}", "<a>b"),
        ("{% include 'plain.html' with user=word only %}", ""),
        ("{% blocktranslate %}a {{ word }}{% endblocktranslate %}", "a word"),
        ("{% url 'nowhere' as there %}{{ there }}", ""),
    ],
)
def test_what_both_see_is_sent(check: Callable[..., str | None], source: str, drawn: str) -> None:
    assert check(source) == drawn


def test_a_csrf_field_is_drawn_empty(settings: Any) -> None:
    configure(settings, [])["row.html"] = "{% csrf_token %}"
    assert render_for_everyone("row.html", {}) == '<input type="hidden" name="csrfmiddlewaretoken" value="">'


def test_a_csrf_token_elsewhere_is_a_viewer_s(settings: Any) -> None:
    """Such a button would be refused: the page fills in its token in fields alone."""
    files = configure(settings, [])
    files["row.html"] = """<button hx-headers='{"X-CSRFToken": "{{ csrf_token }}"}'>Delete</button>"""
    with pytest.raises(ViewerDependentError, match=r"'row.html'.*'csrf_token' \(outside of a form's field\)"):
        render_for_everyone("row.html", {})
    assert "its own" in render_for_everyone("row.html", {"csrf_token": "its own"})
    for quote in ('"', "'", ""):
        field = f"<input value={quote}%s{quote} name=csrfmiddlewaretoken>"
        files["field.html"] = "{% if csrf_token %}" + field % "{{ csrf_token }}" + "{% endif %}"
        assert render_for_everyone("field.html", {}) == field % ""


@pytest.mark.parametrize("processor", ["give_tenant", "give_through_another"])
@pytest.mark.parametrize(
    "source",
    ["{% if tenant or through_another %}STAFF{% endif %}", "{% by_get 'tenant' %}{% by_get 'through_another' %}",
     "{% by_membership 'tenant' %}{% by_membership 'through_another' %}", "{% by_flattening 'tenant' %}"],
)  # fmt: skip
def test_a_processor_that_says_nothing_without_a_viewer_makes_what_is_missing_suspicious(
    settings: Any, processor: str, source: str
) -> None:
    files = configure(settings, [processor])
    files["row.html"] = source
    with pytest.raises(ViewerDependentError, match=processor):
        render_for_everyone("row.html", {})


def test_a_processor_that_failed_for_once_is_asked_again(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    files = configure(settings, ["give_motto"])
    files["row.html"] = "{{ motto }}{{ missing }}"
    monkeypatch.setattr("tests.test_rendering.is_database_away", True)
    with pytest.raises(ViewerDependentError, match="give_motto"):
        render_for_everyone("row.html", {})
    monkeypatch.setattr("tests.test_rendering.is_database_away", False)
    assert render_for_everyone("row.html", {}) == "Onwards"


# Who keeps contexts


@contextmanager
def signal_heard(signal: Any, receiver: Any) -> Iterator[None]:
    signal.connect(receiver)
    try:
        yield
    finally:
        signal.disconnect(receiver)


@pytest.mark.parametrize("source", ["{{ name }}", "{{ user }}", "{% included_flat %}"])
def test_debug_toolbar_looks_into_contexts_after_the_rendering(settings: Any, source: str) -> None:
    files = configure(settings, [])
    files["row.html"] = source
    layers: list[Any] = []

    def keep(context: Any, **_: Any) -> None:
        layers.extend(layer for layer in context.dicts if layer)

    with signal_heard(template_rendered, keep):
        for _ in range(2):
            with suppress(ViewerDependentError):
                render_for_everyone("row.html", {"name": "word"})
    assert layers
    for layer in layers:
        for other in layers:
            assert (layer == other) in (True, False)
        for value in layer.values():
            assert not hasattr(value, "_wrapped")


def test_the_context_of_a_test_client_is_that_of_the_view(settings: Any) -> None:
    configure(settings, [])["row.html"] = "{{ name }}"
    contexts = ContextList()
    with signal_heard(template_rendered, lambda context, **_: contexts.append(copy(context))):
        render_for_everyone("row.html", {"name": "word"})
        get_template("row.html").render({"user": "otter"}, RequestFactory().get("/"))
    assert contexts["user"] == "otter"
    assert contexts["name"] == "word"


def test_what_jinja_was_given_is_forgotten_as_well(settings: Any, tmp_path: Path, monkeypatch: Any) -> None:
    pytest.importorskip("jinja2", reason="Jinja2 is not installed")
    (tmp_path / "row.html").write_text("{{ name }}")
    settings.TEMPLATES = [{"BACKEND": "django.template.backends.jinja2.Jinja2", "DIRS": [str(tmp_path)]}]
    given: list[Any] = []
    template: Any = type(get_template("row.html"))
    render = template.render
    monkeypatch.setattr(template, "render", lambda self, context: given.append(context) or render(self, context))
    assert render_for_everyone("row.html", {"name": "word"}) == "word"
    assert given == [{}]


# Templates at random

LEAVES = (
    "user user.is_staff user.username perms perms.auth.add_user request request.user request.user.is_staff messages "
    "cart extra held held.is_staff ask word items name site_name missing x forloop.counter 'a' 1 None"
).split()
FILTERS = ["upper", "default:'d'", "default:user", "length", "yesno:'y,n'", "staff", "default_if_none:'n'", "first",
           "add:word", "add:user", "stringformat:'s'", "join:','", "slice:':1'", "title|lower"]  # fmt: skip
CONDITIONS = ["{0}", "not {0}", "{0} and {1}", "{0} or {1}", "{0} == {1}", "{0} != {1}", "{0} in {1}", "{0} not in {1}",
              "{0} is None", "{0} is not {1}", "{0} < {1}", "not {0} and {1} or {0}"]  # fmt: skip
BLOCKS = [
    "{{{{ {v} }}}}",
    "{{% if {c} %}}{t}{{% elif {c} %}}{t}{{% else %}}{t}{{% endif %}}",
    "{{% with x={v} %}}{t}{{% endwith %}}",
    "{{% for x in {v} %}}{t}{{% empty %}}{t}{{% endfor %}}",
    "{{% firstof {v} {v} 'z' %}}",
    "{{% ifchanged {v} %}}{t}{{% else %}}{t}{{% endifchanged %}}",
    "{{% include 'plain.html' with name={v} %}}",
    "{{% include 'plain.html' with user={v} only %}}",
    "{{% quietly %}}{t}{{% endquietly %}}",
    "{{% filter upper %}}{t}{{% endfilter %}}",
    "{{% cycle {v} {v} as y silent %}}{t}",
    "{{% blocktranslate with z={v} %}}{{{{ z }}}}{{{{ x }}}}{{% endblocktranslate %}}",
    "{{% spaceless %}}{t}{{% endspaceless %}}",
    "{{% by_get '{n}' %}}",
    "{{% by_membership '{n}' %}}",
    "{{% included %}}",
    "{{% included_named %}}",
    "{t}{t}",
    "text",
]


def any_value(choice: random.Random) -> str:
    return "|".join([choice.choice(LEAVES), *choice.sample(FILTERS, choice.choice([0, 0, 0, 1, 2]))])


def any_template(choice: random.Random, depth: int = 3) -> str:
    if not depth:
        return "{{ " + any_value(choice) + " }}"
    parts = choice.choice(BLOCKS)
    while True:
        for hole, fill in (
            ("{v}", lambda: any_value(choice)),
            ("{c}", lambda: choice.choice(CONDITIONS).format(any_value(choice), any_value(choice))),
            ("{t}", lambda: any_template(choice, depth - 1).replace("{", "{{").replace("}", "}}")),
            ("{n}", lambda: choice.choice(["cart", "extra", "name", "word", "held"])),
        ):
            if hole in parts:
                parts = parts.replace(hole, fill(), 1)
                break
        else:
            return parts.replace("{{", "{").replace("}}", "}")


def test_templates_at_random_send_nothing_that_differs(check: Callable[..., str | None]) -> None:
    """More of them: SSE_LIVE_TEMPLATES=20000."""
    seed = int.from_bytes(os.urandom(3), "big")
    print(f"seed {seed}")
    choice = random.Random(seed)
    count = int(os.environ.get("SSE_LIVE_TEMPLATES", "300"))
    results = [check(any_template(choice)) for _ in range(count)]
    assert 0 < results.count(None) < count
