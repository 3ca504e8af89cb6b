"""A Graph-shaped API on this machine: mailboxes with folders of contacts, and what changed in each since a delta link.

Written from Microsoft's published contract (https://learn.microsoft.com/graph/api/contact-delta).
"""

import json
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

from identity_pipeline.demo.vendor_api import Asked, Refusal, VendorAPI

Contact = dict[str, Any]
DEFAULT = "default-folder"
_MOST = 999


def _refusal(status: int, code: str, message: str, headers: dict[str, str] | None = None) -> Refusal:
    inner = {"date": "2026-09-20T21:47:50", "request-id": "0", "client-request-id": "0"}
    return Refusal(status, {"error": {"code": code, "message": message, "innerError": inner}}, headers)


@dataclass
class Folder:
    """A folder: its contacts, and for each id that was ever there the number of its last change."""

    name: str
    parent: str | None = None
    contacts: dict[str, Contact] = field(default_factory=dict)
    changed: dict[str, int] = field(default_factory=dict)


@dataclass
class MicrosoftGraphAPI(VendorAPI):
    """A directory: its mailboxes, each with folders by id. The default folder is not listed among the others.

    ``app_only``: no account is signed in, so that ``/me`` is nobody. Delta links from before ``forgotten`` have ended.
    """

    token: str = ""
    scopes: tuple[str, ...] = ("Contacts.Read",)
    app_only: bool = False
    mailboxes: dict[str, dict[str, Folder]] = field(default_factory=lambda: {"ada@contoso.example": {DEFAULT: Folder("Contacts")}})
    forgotten: int = 0
    ended: tuple[int, str] = (410, "syncStateNotFound")
    number: int = 0
    _pages: dict[str, tuple[list[Contact], int, int]] = field(default_factory=dict)

    def put(self, contact_id: str, at: datetime, folder: str = DEFAULT, mailbox: str = "ada@contoso.example", **fields: Any) -> None:
        """Create or change a contact at this time; it leaves the folder that it was in."""
        for name, each in self.mailboxes[mailbox].items():
            if name != folder and contact_id in each.contacts:
                self.delete(contact_id, name, mailbox)
        self.number += 1
        held, stamp = self.mailboxes[mailbox][folder], at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        before = held.contacts.pop(contact_id, {"createdDateTime": stamp})
        held.contacts[contact_id] = {
            **before, "id": contact_id, "changeKey": f"ck{self.number}", "parentFolderId": folder, "lastModifiedDateTime": stamp, **fields,
        }  # fmt: skip
        held.changed[contact_id] = self.number

    def delete(self, contact_id: str, folder: str = DEFAULT, mailbox: str = "ada@contoso.example") -> None:
        """Delete a contact."""
        self.number += 1
        self.mailboxes[mailbox][folder].contacts.pop(contact_id, None)
        self.mailboxes[mailbox][folder].changed[contact_id] = self.number

    def authenticate(self, asked: Asked, *, dead: bool) -> None:
        """By bearer token."""
        if dead or asked.headers.get("Authorization") != f"Bearer {self.token}":
            raise _refusal(401, "InvalidAuthenticationToken", "Access token has expired or is not yet valid.")

    def hasty(self) -> Refusal:
        """More than four at once."""
        return _refusal(429, "ApplicationThrottled", "Application is over its MailboxConcurrency limit.", {"Retry-After": "3"})

    def answer(self, asked: Asked) -> Any:
        """A page of folders or of contacts."""
        if not self.scopes:
            raise _refusal(403, "ErrorAccessDenied", "Access is denied. Check credentials and try again.")
        match asked.steps:
            case ["v1.0", "me", *rest] if not self.app_only:
                mailbox = next(iter(self.mailboxes))
            case ["v1.0", "users", mailbox, *rest] if mailbox in self.mailboxes:
                pass
            case ["v1.0", "me", *_]:
                raise _refusal(400, "BadRequest", "/me request is only valid with delegated authentication flow.")
            case _:
                raise _refusal(404, "ErrorInvalidUser", "The requested user is invalid.")
        folders = self.mailboxes[mailbox]
        match rest:
            case ["contacts"]:
                found = list(folders[DEFAULT].contacts.values())[: int(asked.query.get("$top", 10))]
                return {"value": [self._shown(each, asked) for each in found]}
            case ["contactFolders"]:
                return self._listed(folders, None)
            case ["contactFolders", parent, "childFolders"] if parent in folders:
                return self._listed(folders, parent)
            case ["contactFolders", name, "contacts", "delta"] if name in folders:
                return self._delta(asked, folders[name])
            case _:
                raise _refusal(404, "ErrorItemNotFound", "The specified object was not found in the store.")

    @staticmethod
    def _listed(folders: dict[str, Folder], parent: str | None) -> dict[str, Any]:
        found = [(name, each) for name, each in folders.items() if each.parent == parent and name != DEFAULT]
        return {"value": [{"id": name, "displayName": each.name, "parentFolderId": each.parent or "root"} for name, each in found]}

    @staticmethod
    def _shown(contact: Contact, asked: Asked) -> Contact:
        chosen = asked.query["$select"].split(",") if "$select" in asked.query else list(contact)
        wishes = asked.headers.get("Prefer", "")
        name = contact["id"] if 'IdType="ImmutableId"' in wishes else f"{contact.get('parentFolderId')}-{contact['id']}"
        kept = {key: value for key, value in contact.items() if key in chosen or key.startswith("@")}
        return {"@odata.etag": f'W/"{contact.get("changeKey")}"', **kept, "id": name} if "@removed" not in contact else {**kept, "id": name}

    def _delta(self, asked: Asked, folder: Folder) -> dict[str, Any]:
        if {"$filter", "$orderby", "$top", "$expand"} & set(asked.query):
            raise _refusal(400, "ErrorInvalidUrlQuery", "The following parameters are not supported with change tracking.")
        size = re.search(r"odata\.maxpagesize=(\d+)", asked.headers.get("Prefer", ""))
        select = asked.query.get("$select", "")
        if token := asked.query.get("$skiptoken"):
            held = json.loads(token)
            found, start, seen = self._pages[held["page"]]
            select = held["select"]
        elif token := asked.query.get("$deltatoken"):
            held = json.loads(token)
            if held["seen"] < self.forgotten:
                status, code = self.ended
                raise _refusal(status, code, "The sync state generation is not found", {"Location": f"{self.url}{asked.path}?$deltatoken="})
            found, start, seen, select = self._since(folder, held["seen"]), 0, self.number, held["select"]
        else:
            found, start, seen = list(folder.contacts.values()), 0, self.number
        end = start + self.least(min(int(size[1]) if size else 10, _MOST))
        shown = Asked(asked.method, asked.address, asked.path, {"$select": select} if select else {}, {}, None, asked.headers)
        answer: dict[str, Any] = {"value": [self._shown(each, shown) for each in found[start:end]]}
        base = f"http://{asked.headers['Host']}{asked.path}?"
        if end < len(found):
            page = f"p{len(self._pages)}"
            self._pages[page] = (found, end, seen)
            answer["@odata.nextLink"] = base + urlencode({"$skiptoken": json.dumps({"page": page, "select": select})})
        else:
            answer["@odata.deltaLink"] = base + urlencode({"$deltatoken": json.dumps({"seen": seen, "select": select})})
        return answer

    @staticmethod
    def _since(folder: Folder, seen: int) -> list[Contact]:
        told = [(number, name) for name, number in folder.changed.items() if number > seen]
        return [folder.contacts.get(name, {"id": name, "@removed": {"reason": "deleted"}}) for _, name in sorted(told)]
