import { render } from 'preact'
import { findSession } from './api/client'
import { App } from './app'
import './style.css'

findSession()
render(<App />, document.getElementById('app')!)
