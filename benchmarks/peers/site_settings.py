"""What every site of the benchmarks has in common: as little as Django allows."""

SITE = {
    "SECRET_KEY": "benchmarks",
    "ALLOWED_HOSTS": ["*"],
    "USE_TZ": True,
    "LOGGING_CONFIG": None,
    "DATABASES": {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
}
