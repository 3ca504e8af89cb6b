// The certified OpenID provider, with one client and whoever signs in: the name typed is the account's.
import Provider from 'oidc-provider';

const { port, redirects, secret, groups, scopes, ttl } = JSON.parse(process.argv.at(-1));
const issuer = `http://127.0.0.1:${port}`;
const provider = new Provider(issuer, {
  clients: [{
    client_id: 'client-1', client_secret: secret, redirect_uris: redirects, application_type: 'native',
    grant_types: ['authorization_code', 'refresh_token', 'client_credentials'], token_endpoint_auth_method: 'client_secret_post',
  }],
  scopes: ['openid', 'profile', 'email', 'groups', 'offline_access', ...scopes],
  claims: { openid: ['sub'], profile: ['name', 'preferred_username'], email: ['email', 'email_verified'], groups: ['groups'] },
  findAccount: (_, id) => ({
    accountId: id,
    claims: () => ({ sub: id, email: `${id}@nordwind-demo.com`, email_verified: true, preferred_username: id, groups: groups[id] ?? [] }),
  }),
  cookies: { keys: ['of the tests'] },
  features: { clientCredentials: { enabled: true }, devInteractions: { enabled: true }, revocation: { enabled: true } },
  // with scopes of an API an account is told in the ID token, as the vendors of APIs do; else by user information, as it should be
  conformIdTokenClaims: scopes.length === 0,
  pkce: { required: () => true },
  rotateRefreshToken: true,
  issueRefreshToken: async () => true,
  ttl: { AccessToken: ttl ?? 3600, RefreshToken: 86400, ClientCredentials: ttl ?? 3600 },
});
provider.listen(port, '127.0.0.1', () => console.log('ready'));
