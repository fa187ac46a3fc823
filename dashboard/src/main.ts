import { mount } from 'svelte';
import App from './App.svelte';
import './tokens.css';
import './base.css';
import { language } from './lib/language';

document.documentElement.lang = language();
const target = document.getElementById('app');
if (!target) throw new Error('index.html has no #app');
mount(App, { target });
