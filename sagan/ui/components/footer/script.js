element.querySelector('.line').textContent = props.line;
