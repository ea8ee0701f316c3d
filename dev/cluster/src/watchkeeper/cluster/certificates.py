"""Keys, certificates and tokens of one cluster. They are created once; only root can read them."""

import secrets
from pathlib import Path

from watchkeeper.cluster.commands import run
from watchkeeper.cluster.layout import API_SERVICE, NODE, Layout, write

DAYS = "3650"
EC = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-sha256"]
# The user and group of each token.
USERS = {
    "admin": ("watchkeeper-admin", "system:masters"),
    "kube-controller-manager": ("system:kube-controller-manager", ""),
    "kube-scheduler": ("system:kube-scheduler", ""),
    "kube-proxy": ("system:kube-proxy", ""),
    "kubelet": (f"system:node:{NODE}", "system:nodes"),
}
KSERVE_WEBHOOK = "kserve-webhook-server-service.kserve.svc"


class Certificates:
    """The files in the folder ``certificates``; :meth:`make` creates those that are missing."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self.folder = layout.certificates
        self.authority = self.folder / "authority.crt"
        self.authority_key = self.folder / "authority.key"
        self.tokens = self.folder / "tokens.csv"
        self.account_key = self.folder / "service-accounts.key"
        self.account_public = self.folder / "service-accounts.pub"

    def make(self, node: str) -> None:
        """Create the missing files for a node with the address ``node``."""
        if not self.authority.exists():
            subject = ["-subj", "/CN=watchkeeper-cluster", "-days", DAYS]
            self._openssl("req", "-x509", *EC, *subject, key=self.authority_key, out=self.authority)
        names = ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"]
        names += ["kubernetes.default.svc.cluster.local"]
        self._signed(
            "kube-apiserver", "/CN=kube-apiserver", names, (node, API_SERVICE, "127.0.0.1")
        )
        self._signed("kubelet-client", "/O=system:masters/CN=kube-apiserver-kubelet-client")
        self._signed("kserve-webhook", f"/CN={KSERVE_WEBHOOK}", [KSERVE_WEBHOOK])
        if not self.account_public.exists():
            key = self._openssl("genrsa", out=self.account_key)
            self._openssl("rsa", "-in", key, "-pubout", out=self.account_public)
        if not self.tokens.exists():
            lines = [
                f'{secrets.token_hex(32)},{user},{who},"{groups}"'
                for who, (user, groups) in USERS.items()
            ]
            write(self.tokens, "\n".join(lines) + "\n")

    def certificate(self, name: str) -> Path:
        """Return the path of a certificate that the authority has signed."""
        return self.folder / f"{name}.crt"

    def key(self, name: str) -> Path:
        """Return the path of the key of a certificate."""
        return self.folder / f"{name}.key"

    def token(self, who: str) -> str:
        """Return the token of one of USERS."""
        for line in self.tokens.read_text().splitlines():
            token, _, owner, _ = line.split(",", 3)
            if owner == who:
                return token
        raise KeyError(who)

    def _signed(
        self,
        name: str,
        subject: str,
        names: list[str] | None = None,
        addresses: tuple[str, ...] = (),
    ) -> None:
        if self.certificate(name).exists():
            return
        extension = ["-addext", "basicConstraints=critical,CA:FALSE"]
        extension += ["-addext", "extendedKeyUsage=serverAuth,clientAuth"]
        alternatives = [f"DNS:{one}" for one in names or ()] + [f"IP:{one}" for one in addresses]
        if alternatives:
            extension += ["-addext", f"subjectAltName={','.join(alternatives)}"]
        signer = ["-CA", str(self.authority), "-CAkey", str(self.authority_key), "-days", DAYS]
        request = ["req", "-x509", *EC, "-subj", subject, *signer, *extension]
        self._openssl(*request, key=self.key(name), out=self.certificate(name))

    def _openssl(self, *words: str, out: Path, key: Path | None = None) -> str:
        """Run openssl; the result gets its name when it is complete."""
        new = out.with_name(out.name + ".new")
        new.touch(mode=0o600)
        keyed = []
        if key is not None:
            key.touch(mode=0o600)
            keyed = ["-keyout", str(key)]
        run(["openssl", *words, *keyed, "-out", str(new)])
        new.chmod(0o600)
        new.replace(out)
        return str(out)
