// The frame around the pages, and which page a URL means. Hash URLs: the API needs no routes for
// them, and those of LoRAX and Predibase stay free.
import { useEffect } from 'preact/hooks'
import { Link, Route, Router, Switch, useLocation } from 'wouter-preact'
import { useHashLocation } from 'wouter-preact/use-hash-location'
import { logOut, may, session } from './api/client'
import { connected } from './api/live'
import { Adapters } from './pages/adapters'
import { DeploymentPage } from './pages/deployment/page'
import { Deployments } from './pages/deployments'
import { Keys } from './pages/keys'
import { Login } from './pages/login'
import { RepoPage } from './pages/repo'
import { SystemPage } from './pages/system'
import { TrainingPage } from './pages/training'
import { Trainings } from './pages/trainings'
import { Usage } from './pages/usage'
import { act, Confirmation, Notices } from './parts/asking'
import { theme, toggleTheme } from './parts/theme'

const PLACES: [string, string, () => boolean][] = [
  ['/deployments', 'Deployments', () => true],
  ['/adapters', 'Adapters', () => true],
  ['/fine-tuning', 'Fine-tuning', () => true],
  ['/usage', 'Usage', () => may('deployments')],
  ['/keys', 'Keys & limits', () => may('admin')],
  ['/system', 'System', () => may('admin') && !!session.value?.operator],
]

export function App() {
  const known = session.value
  if (known === undefined) return <p class="empty">Connecting …</p>
  return (
    <>
      {known === null ? (
        <Login />
      ) : (
        <Router hook={useHashLocation}>
          <Frame />
        </Router>
      )}
      <Notices />
    </>
  )
}

function Frame() {
  const [location] = useLocation()
  const here = location === '/' ? '/deployments' : location
  useEffect(() => {
    document.title = `${here.slice(1).split('/').map(decodeURIComponent).join(' · ')} – Loraplex`
  }, [here])
  return (
    <div class="frame">
      <a class="skip" href="#main" onClick={skip}>
        Skip to content
      </a>
      <header class="side">
        <Link href="/deployments" class="brand">
          <img src="/favicon.svg" alt="" width="26" height="26" />
          <span>Loraplex</span>
        </Link>
        <nav aria-label="Pages">
          {PLACES.filter(([, , allowed]) => allowed()).map(([path, name]) => (
            <Link href={path} aria-current={here.startsWith(path) ? 'page' : undefined}>
              {name}
            </Link>
          ))}
        </nav>
        <div class="side-foot">
          <span class={connected.value ? 'live on' : 'live'} role="status">
            {connected.value ? 'live' : 'reconnecting …'}
          </span>
          <span class="tenant">{session.value!.tenant}</span>
          <button class="quiet" onClick={toggleTheme}>
            {theme.value === 'dark' ? 'Light' : 'Dark'}
          </button>
          <button class="quiet" onClick={() => act('Log out', logOut)}>
            Log out
          </button>
        </div>
      </header>
      <main id="main" tabIndex={-1}>
        <Switch>
          <Route path="/" component={Deployments} />
          <Route path="/deployments" component={Deployments} />
          <Route path="/deployments/:name/:tab?">
            {(at) => <DeploymentPage key={at.name} name={decodeURIComponent(at.name!)} tab={at.tab ?? 'overview'} />}
          </Route>
          <Route path="/adapters" component={Adapters} />
          <Route path="/adapters/:repo">
            {(at) => <RepoPage key={at.repo} name={decodeURIComponent(at.repo!)} />}
          </Route>
          <Route path="/fine-tuning" component={Trainings} />
          <Route path="/fine-tuning/:job">{(at) => <TrainingPage key={at.job} id={at.job!} />}</Route>
          <Route path="/usage" component={Usage} />
          <Route path="/keys" component={Keys} />
          <Route path="/system" component={SystemPage} />
          <Route>
            <h1>Not found</h1>
            <p>
              There is no such page. <Link href="/deployments">Deployments</Link>
            </p>
          </Route>
        </Switch>
      </main>
      <Confirmation />
    </div>
  )
}

function skip(event: Event) {
  event.preventDefault()
  document.getElementById('main')!.focus()
}
