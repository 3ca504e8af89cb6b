"""The pages: HTML from the same functions that the API answers with."""

from fastapi import APIRouter

from identity_pipeline.web.pages import credentials, form, source, sources

router = APIRouter(include_in_schema=False)
for _each in (sources, form, source, credentials):  # the form's own paths before those that begin with a source's name
    router.include_router(_each.router)
