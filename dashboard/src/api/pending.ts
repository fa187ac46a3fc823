// Routes and fields that the document does not describe yet; whatever it describes is removed from here.
import type { components, paths as described } from './schema';

type Schemas = components['schemas'];

export interface BrowserSession {
  accessToken: string;
  tokenType: string;
  /** Seconds until the access token expires. */
  expiresIn: number;
  /** Seconds until the login expires. */
  sessionExpiresIn: number;
  user: Schemas['User'];
}

export type UpdateMe = Schemas['UpdateMe'] & { name?: string };

type UpdateMyself = described['/api/auth/me']['patch'] & {
  requestBody: { content: { 'application/json': UpdateMe } };
};

export type paths = Omit<described, '/api/auth/me'> & {
  '/api/auth/me': Omit<described['/api/auth/me'], 'patch'> & { patch: UpdateMyself };
};
